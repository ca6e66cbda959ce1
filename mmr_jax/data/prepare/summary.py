"""What a run tells at its end, and summary.txt: how many clips, with what, and what was wrong with the others."""

import collections
import io

import numpy as np
from rich.console import Console, Group
from rich.table import Table

from mmr_jax.data.prepare.index import KEPT_ANYWAY, Made, failures
from mmr_jax.data.prepare.plan import Plan
from mmr_jax.data.prepare.records import MODALITIES

_TOP = 12  # kinds of failure that are shown


def text(plan: Plan, splits: list[Made]) -> str:
    """The tables as text; a pure function of what was prepared, so without times."""
    parts = [_splits(plan, splits)]
    failed = collections.Counter((m, reason) for _, _, m, reason, _ in failures(plan, splits))
    notes = sum((split.notes for split in splits), collections.Counter())
    notes[KEPT_ANYWAY] += failed.pop(("clip", KEPT_ANYWAY), 0)
    if failed:
        parts.append(_failures(failed))
    lines = [f"{note}: {_clips(n)}" for note, n in _ranked(+notes)]
    file = io.StringIO()
    console = Console(file=file, width=100, highlight=False, color_system=None, legacy_windows=False)
    console.print(Group(*parts), markup=False)
    return "\n".join([*(line.rstrip() for line in file.getvalue().splitlines()), *lines]) + "\n"


def _splits(plan: Plan, splits: list[Made]) -> Table:
    table = Table("split", *("clips", "kept", *MODALITIES, "hours of audio", "MB"), title=plan.listing.title)
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [(split.name, split.counts(), _hours(split), split.bytes) for split in splits]
    for name, counts, hours, size in rows:
        table.add_row(name, *map(str, counts.values()), f"{hours:.2f}", f"{size / 1e6:.1f}")
    if len(rows) > 1:
        totals = sum((collections.Counter(counts) for _, counts, _, _ in rows), collections.Counter())
        table.add_section()
        cells = [str(totals[key]) for key in rows[0][1]]
        table.add_row("all", *cells, f"{sum(r[2] for r in rows):.2f}", f"{sum(r[3] for r in rows) / 1e6:.1f}")
    return table


def _failures(failed: collections.Counter) -> Table:
    table = Table("what was lost", "reason", "clips", title="failures.csv")
    table.columns[2].justify = "right"
    ranked = _ranked(failed)
    for (modality, reason), n in ranked[:_TOP]:
        table.add_row("the clip" if modality == "clip" else modality, reason, str(n))
    if len(ranked) > _TOP:
        table.add_row("", f"{len(ranked) - _TOP} more reasons", str(sum(n for _, n in ranked[_TOP:])))
    return table


def _ranked(counter: collections.Counter) -> list[tuple]:
    """Most frequent first, and equal ones by name: the order in which they were counted must not matter."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def _hours(split: Made) -> float:
    audible = split.columns["present"][:, MODALITIES.index("audio")]
    return split.columns["duration"][audible].sum(dtype=np.float64) / 3600


def _clips(n: int) -> str:
    return "1 clip" if n == 1 else f"{n} clips"
