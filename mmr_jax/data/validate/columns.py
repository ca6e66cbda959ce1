"""What the indexes alone tell, of all clips and without reading a record."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmr_jax.data.prepare.records import MODALITIES
from mmr_jax.data.prepared.folder import Split
from mmr_jax.data.validate.facts import FIRST, OVERLAP, SAME_ID, UNUSED, Case, Found
from mmr_jax.errors import UserError

Index = Mapping[str, np.ndarray]


def check(split: Split, classes: Mapping[str, Sequence[str]]) -> None:
    """UserError if the index cannot be that of the split: a column absent, of another length or out of range."""
    wrong = _wrong(split.index, len(split), classes)
    if wrong:
        raise UserError(f"the index of split {split.name} is damaged ({wrong}); delete the folder and prepare it again")


def _wrong(index: Index, size: int, classes: Mapping[str, Sequence[str]]) -> str:
    wanted = {name: (size,) for name in ("id", "source", "duration")} | {"present": (size, len(MODALITIES))}
    wanted |= {f"offset-{name}": (size + 1,) for name in classes}
    for column, shape in wanted.items():
        if column not in index or index[column].shape != shape:
            found = index[column].shape if column in index else "absent"
            return f"{column} is {found}, expected {shape}"
    if not np.isfinite(index["duration"]).all():
        return "duration has values that are no numbers"
    for name, names in classes.items():
        labels, offsets = index.get(f"label-{name}"), index[f"offset-{name}"]
        if labels is None or offsets[0] != 0 or offsets[-1] != len(labels) or (np.diff(offsets) < 0).any():
            return f"label-{name} and offset-{name} do not fit"
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
            return f"label-{name} has classes outside 0 to {len(names) - 1}"
    return ""


def lines(index: Index, rows: np.ndarray, label_sets: Sequence[str]) -> list[dict]:
    """The lines of these rows, as checks.against_index takes them."""
    return [
        {
            **{name: index[name][row] for name in ("id", "source", "present", "duration")},
            "labels": {s: index[f"label-{s}"][slice(*index[f"offset-{s}"][row : row + 2])] for s in label_sets},
        }
        for row in rows
    ]


def combinations(index: Index) -> dict[str, int]:
    """{"audio+frames": clips}: which modalities clips have together, most frequent first; "none" for nothing."""
    codes = np.bincount(index["present"] @ (1 << np.arange(len(MODALITIES))), minlength=1 << len(MODALITIES))
    names = ["+".join(m for i, m in enumerate(MODALITIES) if code >> i & 1) or "none" for code in range(len(codes))]
    return {names[code]: int(codes[code]) for code in np.argsort(-codes, kind="stable") if codes[code]}


def class_counts(index: Index, label_set: str, classes: int) -> np.ndarray:
    """int64 [classes]: how many labels of each class there are."""
    return np.bincount(index[f"label-{label_set}"], minlength=classes)


def same_ids(indexes: Mapping[str, Index]) -> Found:
    """Clips with the id of an earlier one."""
    ids, splits, rows = _joined(indexes, "id")
    order = np.argsort(ids, kind="stable")
    repeats = np.flatnonzero(ids[order][1:] == ids[order][:-1]) + 1
    firsts = np.searchsorted(ids[order], ids[order][repeats])  # the first clip with the same id
    found = Found(len(repeats))
    for i, first in sorted((order[a], order[b]) for a, b in zip(repeats, firsts, strict=True))[:FIRST]:
        found.first.append(Case(splits[i], int(rows[i]), str(ids[i]), f"as in {splits[first]}, row {rows[first]}"))
    return found


def overlap(indexes: Mapping[str, Index]) -> Found:
    """Sources with clips in several splits; clips that name no source are left out."""
    own = {name: np.unique(index["source"]) for name, index in indexes.items()}
    sources, counts = np.unique(np.concatenate([*own.values(), np.zeros(0, "U1")]), return_counts=True)
    several = sources[(counts > 1) & (sources != "")]
    cases = [Case("", -1, str(s), " and ".join(n for n, has in own.items() if s in has)) for s in several[:FIRST]]
    return Found(len(several), cases)


def unused(counts: Mapping[str, np.ndarray], classes: Mapping[str, Sequence[str]]) -> Found:
    """Classes of which `counts` {set: int64 [classes]} over all splits is 0."""
    found = Found()
    for name, count in counts.items():
        for label in np.flatnonzero(count == 0):
            found.add(Case("", -1, classes[name][label], f"of {name}"))
    return found


def from_indexes(indexes: Mapping[str, Index], classes: Mapping[str, Sequence[str]]) -> dict[str, Found]:
    """Everything suspicious that the indexes show."""
    counts = {
        name: sum(class_counts(index, name, len(names)) for index in indexes.values())
        for name, names in classes.items()
    }
    return {SAME_ID: same_ids(indexes), OVERLAP: overlap(indexes), UNUSED: unused(counts, classes)}


def _joined(indexes: Mapping[str, Index], column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A column of all splits, and of each entry the split and the row."""
    sizes = {name: len(index[column]) for name, index in indexes.items()}
    values = np.concatenate([index[column] for index in indexes.values()])
    return values, np.repeat(list(sizes), list(sizes.values())), np.concatenate([np.arange(n) for n in sizes.values()])
