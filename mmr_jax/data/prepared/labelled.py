"""Labels of a prepared split, from its index."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmr_jax.data.prepared.index import Index
from mmr_jax.data.source import Batch, Record, Source, Subset, gather


class LabelSet(NamedTuple):
    """A label set: `name` "" where there is none (a pool for pretraining), its number of classes."""

    name: str
    classes: int
    multilabel: bool


class Labelled(Subset):
    """The records of `source` at `rows` int64 [N], with the labels that their index has; ids are 0 to N - 1."""

    def __init__(self, source: Source, index: Index, rows: np.ndarray, labels: LabelSet):
        super().__init__(source, rows)
        self._index, self._labels = index, labels

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {**super().__getitem__(index), "label": self._dense(np.array([index]))[0], "id": index}

    def take(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return self._named(indices, super().take(indices))

    def draw(self, indices: Sequence[int] | np.ndarray, draws: np.ndarray) -> Batch:
        return self._named(indices, super().draw(indices, draws))

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        return self._classes(np.arange(len(self)))

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        everything = np.arange(len(self), dtype=np.int32)
        return self._dense(everything), everything

    def _named(self, indices, batch: Batch) -> Batch:
        return {**batch, "label": self._dense(np.asarray(indices)), "id": np.asarray(indices, np.int32)}

    def _classes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(classes, offsets) of some records, as `Index.labels` has them for all."""
        if not self._labels.name:
            return np.zeros(0, np.int32), np.zeros(len(indices) + 1, np.int64)
        return gather(*self._index.labels(self._labels.name), self._indices[indices])

    def _dense(self, indices: np.ndarray) -> np.ndarray:
        """int32 [n], or float32 [n, C] of 0 and 1; of a record without labels 0."""
        classes, offsets = self._classes(indices)
        counts = np.diff(offsets)
        if not self._labels.multilabel:
            label = np.zeros(len(indices), np.int32)
            label[counts > 0] = classes[offsets[:-1][counts > 0]]
            return label
        label = np.zeros((len(indices), self._labels.classes), np.float32)
        label[np.repeat(np.arange(len(indices)), counts), classes] = 1.0
        return label


def labelled_rows(index: Index, label_set: str, rows: np.ndarray) -> np.ndarray:
    """Those of `rows` that have a label in a label set."""
    return rows[np.diff(index.labels(label_set)[1])[rows] > 0]
