"""What pretraining learned, before any task: retrieval across modalities, and reconstructions of hidden patches."""

from mmr_jax.robustness.report.blocks import Block, Gallery, Paragraph, Picture, Table
from mmr_jax.robustness.report.content import Content
from mmr_jax.robustness.report.words import Scale
from mmr_jax.robustness.retrieval import KS
from mmr_jax.robustness.subsets import parse_subset

_PERCENT, _RANK = Scale(100, 1), Scale(1, 1)
_RECALL = [f"R{k}" for k in KS]
_EACH = "/".join(str(k) for k in KS)
ABOUT_RETRIEVAL = (
    "Every example of one modality searches the embeddings of another one, as pretraining left them (all tokens, no "
    "masking, cosine). Shares in %, mean ± deviation over seeds; examples that lack one of the two modalities are left "
    "out; ties count as misses."
)
ABOUT_CEILING = (
    "Chance: a random order. Class known: a model that finds the class of the query and nothing more, its candidates "
    "in random order; where partners share only their class, this is the ceiling."
)
ABOUT_PICTURES = (
    "Each row is a modality: the input, what the model sees (hidden patches grey, hidden text as blocks), and the "
    "output (predictions where hidden, the input elsewhere). Text: blue is predicted right, orange and underlined "
    "predicted wrong; words joined by a slash have the same token."
)
ABOUT_NORMALISED = (
    " The model predicts patches that are normalised one by one; the pictures put the true mean and deviation of each "
    "hidden patch back, so its brightness and contrast are not predicted."
)
ABOUT_ERRORS = (
    "Mean over the hidden patches of these examples: squared error of patches against predicting each patch's own "
    "mean, cross-entropy of text against a uniform guess. Ratio: error over blind guess, below 1 is better than blind."
)


def retrieval(content: Content) -> list[Block | None]:
    """A table by instance and one by class for every pretraining set."""
    made: list[Block | None] = []
    for pretrain, rows in content.retrieval.items():
        made += [_by_instance(pretrain, rows), _by_class(pretrain, rows)]
    return [Paragraph(ABOUT_RETRIEVAL), *made] if made else []


def _by_instance(pretrain: str, rows: list[dict]) -> Table:
    columns = ["Query → candidates", "Examples", *(f"R@{k}" for k in KS), "Median rank"]
    columns += [f"Chance R@{_EACH}", f"Class known R@{_EACH}"]
    cells = [
        [
            *_start(pretrain, row),
            *(_cell(row, "instance", k) for k in _RECALL),
            _cell(row, "instance", "median_rank", _RANK),
            _together(row, "instance_chance"),
            _together(row, "instance_class"),
        ]
        for row in rows
    ]
    return Table(f"The query's own partner, pretrained on {pretrain}", columns, cells, ABOUT_CEILING + _unseen(cells))


def _by_class(pretrain: str, rows: list[dict]) -> Table:
    columns = ["Query → candidates", "Examples", *(f"Class@{k}" for k in KS), f"Chance class@{_EACH}"]
    cells = [
        [*_start(pretrain, row), *(_cell(row, "class", k) for k in _RECALL), _together(row, "class_chance")]
        for row in rows
    ]
    note = "Share of queries with an example of their class (or one of their labels) among the nearest k."
    return Table(f"An example of the query's class, pretrained on {pretrain}", columns, cells, note + _unseen(cells))


def _start(pretrain: str, row: dict) -> list[str]:
    known = {row["query"], row["candidates"]} <= set(parse_subset(pretrain))
    return [f"{row['query']} → {row['candidates']}{'' if known else ' *'}", str(row["n"])]


def _unseen(cells: list[list[str]]) -> str:
    marked = any(row[0].endswith("*") for row in cells)
    return " *: pretraining did not see this pair of modalities." if marked else ""


def _cell(row: dict, part: str, key: str, scale: Scale = _PERCENT) -> str:
    return scale.stat(row[part][key]) if part in row else "–"


def _together(row: dict, part: str) -> str:
    return " / ".join(_PERCENT.number(row[part][k].mean) for k in _RECALL) if part in row else "–"


def reconstructions(content: Content) -> list[Block | None]:
    """A gallery and a table of errors for every pretraining set."""
    made: list[Block | None] = []
    for i, found in enumerate(content.meta.get("reconstructions") or []):
        note = ABOUT_PICTURES + (ABOUT_NORMALISED if found["normalized"] else "")
        made += [Gallery([_picture(i, j, p) for j, p in enumerate(found["pictures"])], note), _errors(found)]
    return made


def _picture(i: int, j: int, given: dict) -> Picture:
    title = str(given["title"])
    alt = f"Reconstruction of {title}: input, what the model sees and output side by side, one row per modality"
    return Picture(f"reconstruction-{i + 1}-{j + 1}.png", title, given["png"], alt)


def _errors(found: dict) -> Table:
    """Errors of the hidden patches, per modality."""
    numbers = Scale(1, 3)
    rows = [
        [
            name,
            str(one["hidden"]),
            *(numbers.number(one[k]) if k in one else "–" for k in ("error", "blind", "ratio")),
            _PERCENT.number(one["right"]) if "right" in one else "–",
        ]
        for name, one in found["errors"].items()
    ]
    columns = ["Modality", "Hidden patches", "Error", "Blind guess", "Ratio", "Tokens right, %"]
    return Table(f"Reconstruction, pretrained on {found['pretrain']}", columns, rows, ABOUT_ERRORS)
