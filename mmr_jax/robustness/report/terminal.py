"""Table 1 and the best method's matrix on the terminal; plain without one or with NO_COLOR."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmr_jax.robustness.report.content import Content, build
from mmr_jax.robustness.report.tables import metric_columns
from mmr_jax.robustness.report.words import metric_name, scale_of, summary
from mmr_jax.robustness.results import Result
from mmr_jax.robustness.subsets import all_subsets

WIDEST = 100  # columns
SHORT_SLICES = {"overall": "all", "missing": "miss.", "added": "added", "transfer": "trans"}
SHORT_KEYS = {"performance": "P", "robustness": "R", "performance_best": "P max", "robustness_best": "R max"}


def print_summary(results: Sequence[Result], meta: Mapping | None = None, console: Console | None = None) -> None:
    """Print Table 1, the matrix of the method with the highest R, and the summary in words."""
    console = console or Console()
    width = min(WIDEST, console.width)
    content = build(results, meta)
    console.print(_text(f"Performance P and robustness R, {metric_name(content)}"), width=width)
    console.print(_table_1(content), width=width)
    matrix = _matrix(content)
    if console.measure(matrix).minimum <= width:
        console.print(_text(f"{content.best}: trained on (rows), evaluated on (columns)"), width=width)
        console.print(matrix, width=width)
    else:
        columns = len(all_subsets(content.modalities))
        console.print(f"The matrix of {columns} columns is too wide for this terminal; see the report.")
    console.print(_text(summary(content)), width=width)


def _text(name: str, style: str = "") -> Text:
    """A name as it is: no markup, and no control characters that a terminal would obey."""
    return Text("".join(c if c.isprintable() else "?" for c in name), style)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=0)


def _table_1(content: Content) -> Table:
    """Methods x metrics; the deviation stands under its mean, which keeps eleven columns narrow."""
    scale, columns = scale_of(content), metric_columns(content, content.table)
    table = _table()
    table.add_column("method", overflow="ellipsis", no_wrap=True, min_width=8, max_width=20)
    for name, key, _ in columns:
        table.add_column(f"{SHORT_SLICES[name]}\n{SHORT_KEYS[key]}", justify="right")
    for method in content.methods:
        best = "bold" if method == content.best else ""
        stats = [content.table[method][name][key] for name, key, _ in columns]
        table.add_row(_text(method, best), *(scale.stat(stat).replace(" ± ", "\n±") for stat in stats), style=best)
    return table


def _matrix(content: Content) -> Table:
    """The matrix of the most robust method, columns by short names."""
    scale, columns = scale_of(content), all_subsets(content.modalities)
    short = short_names(content.modalities)
    joint = "" if all(len(name) == 1 for name in short.values()) else "+"
    table = _table()
    table.add_column("", no_wrap=True)
    for column in columns:
        name = joint.join(short[modality] for modality in column.split("+"))
        table.add_column(_text(name), justify="right", no_wrap=True, min_width=len(name))
    for row in content.train_subsets:
        values = [content.matrices[content.best][row][column].mean for column in columns]
        cells = [
            _text(scale.number(value), "bold" if column == row else "")
            for column, value in zip(columns, values, strict=True)
        ]
        table.add_row(_text(row), *cells)
    return table


def short_names(modalities: Sequence[str]) -> dict[str, str]:
    """The shortest beginning of each name that no other name has, capitalised: audio -> A."""
    short = {}
    for name in modalities:
        others = [other for other in modalities if other != name]
        sizes = range(1, len(name) + 1)
        unique = (name[:n] for n in sizes if not any(other.startswith(name[:n]) for other in others))
        short[name] = next(unique, name).capitalize()
    return short
