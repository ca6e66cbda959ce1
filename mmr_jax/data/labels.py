"""Label enhancement, and files of labels that replace those of a data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmr_jax.data.source import Batch, Record, Source, View, labels_of, ragged
from mmr_jax.errors import UserError


class Relabelled(View):
    """`source` with the labels float32 [N, C] that `ids` int [N] name; every record must be among them."""

    def __init__(self, source: Source, ids: np.ndarray, labels: np.ndarray, origin: str = "the new labels"):
        super().__init__(source)
        self._order = np.argsort(ids, kind="stable")
        self._ids, self._labels, self._origin = ids[self._order], labels[self._order], origin
        if (self._ids[1:] == self._ids[:-1]).any():
            twice = self._ids[1:][self._ids[1:] == self._ids[:-1]][0]
            raise UserError(f"{origin}: id {twice} is there twice")
        old, found = labels_of(source)
        if old.ndim != 2:
            raise UserError(f"{origin}: the data set has one label per example; a multi-label set is expected")
        if old.shape[1:] != labels.shape[1:]:
            raise UserError(f"{origin}: {labels.shape[1]} classes, but the data set has {old.shape[1]}")
        self._rows(found)

    def __getitem__(self, index: int) -> Record:
        record = super().__getitem__(index)
        return {**record, "label": self._labels[self._rows(np.array([record["id"]]))[0]].copy()}

    def take(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return self._relabelled(super().take(indices))

    def draw(self, indices: Sequence[int] | np.ndarray, draws: np.ndarray) -> Batch:
        return self._relabelled(super().draw(indices, draws))

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        ids = labels_of(self._source)[1]
        return self._labels[self._rows(ids)], ids

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        return ragged(self.labels()[0])

    def _relabelled(self, batch: Batch) -> Batch:
        return {**batch, "label": self._labels[self._rows(batch["id"])]}

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        rows = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        lost = ids[self._ids[rows] != ids]
        if len(lost):
            raise UserError(f"{self._origin}: no label for id {lost[0]} ({len(lost)} of {len(ids)} examples have none)")
        return rows


def enhance(
    labels: np.ndarray, scores: np.ndarray, pairs: Sequence[tuple[int, int]], quantile: float | None = None
) -> np.ndarray:
    """Label enhancement (PSLA, arXiv 2102.01243, section III-E): labels and teacher's scores [N, C] -> labels [N, C].

    labels are 0 or 1. `pairs` are (parent class, child class). To an example are added the direct children and all the
    ancestors of its labels whose score is above the class's threshold: the mean of the scores of the examples that have
    the class, or their `quantile`. A class without examples is not added.
    """
    classes = labels.shape[1]
    if scores.shape != labels.shape:
        raise UserError(f"scores are {scores.shape} and labels {labels.shape}; one score per label is expected")
    child = np.zeros((classes, classes), bool)
    for parent, below in pairs:
        if not (0 <= parent < classes and 0 <= below < classes):
            raise UserError(f"pair ({parent}, {below}): classes are 0 to {classes - 1}")
        child[parent, below] = True
    related = child | _closure(child.T)
    has = labels > 0
    statistic = np.mean if quantile is None else lambda s: np.quantile(s, quantile)
    threshold = [statistic(scores[has[:, c], c]) if has[:, c].any() else np.inf for c in range(classes)]
    candidates = has.astype(np.int64) @ related.astype(np.int64) > 0
    return (has | (candidates & (scores > threshold))).astype(np.float32)


def _closure(relation: np.ndarray) -> np.ndarray:
    """Transitive closure of bool [C, C]."""
    while True:
        longer = relation | (relation.astype(np.int64) @ relation.astype(np.int64) > 0)
        if (longer == relation).all():
            return relation
        relation = longer


def write_labels(path: str | Path, ids: np.ndarray, labels: np.ndarray) -> None:
    """A file for `finetune.labels`: npz with `id` int32 [N] and `label` float32 [N, C]."""
    if np.ndim(labels) != 2 or len(ids) != len(labels):
        raise UserError(f"labels are {np.shape(labels)} for {len(ids)} ids; expected [N, C] for N ids")
    with Path(path).open("wb") as file:  # np.savez would add a suffix
        np.savez_compressed(file, id=np.asarray(ids, np.int32), label=np.asarray(labels, np.float32))


def read_labels(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """(ids int32 [N], labels float32 [N, C]) of a file that `write_labels` made."""
    try:
        with np.load(path) as file:
            ids, labels = file["id"], file["label"]
    except FileNotFoundError:
        raise UserError(f"finetune.labels: there is no file {path}") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"finetune.labels: {path} is no npz file with id [N] and label [N, C] ({error})") from None
    if ids.ndim != 1 or labels.ndim != 2 or len(ids) != len(labels) or not len(ids):
        raise UserError(f"finetune.labels: {path} has id {ids.shape} and label {labels.shape}; expected [N] and [N, C]")
    return ids, labels.astype(np.float32)


def relabel(source: Source, path: str | Path) -> Relabelled:
    """`source` with the labels of the file at `path`."""
    return Relabelled(source, *read_labels(path), origin=f"finetune.labels: {path}")
