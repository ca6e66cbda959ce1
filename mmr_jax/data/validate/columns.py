"""What the indexes alone tell, of all clips and without reading a record."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmr_jax.data.prepare.records import MODALITIES
from mmr_jax.data.prepared.index import Index
from mmr_jax.data.validate.facts import FIRST, OVERLAP, SAME_ID, UNUSED, Case, Found


def lines(index: Index, rows: np.ndarray, label_sets: Sequence[str]) -> list[dict]:
    """The lines of these rows, as checks.against_index takes them."""
    labels = {s: index.labels(s) for s in label_sets}
    return [
        {
            **{name: index[name][row] for name in ("id", "source", "present", "duration")},
            "labels": {s: classes[slice(*offsets[row : row + 2])] for s, (classes, offsets) in labels.items()},
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
    return np.bincount(index.labels(label_set)[0], minlength=classes)


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
