"""Several sources as one: end to end, or mixed by weights."""

from collections.abc import Sequence
from functools import partial

import grain
import numpy as np

from mmr_jax.data.draws import order_at
from mmr_jax.data.source import Batch, Record, Source, classes_of, draw, labels_of, map_batch, take
from mmr_jax.seeds import fold_seed

_ENDLESS = 1 << 40  # elements of a source that is repeated; more than any run reads


class Joined:
    """Sources of the same modalities and labels end to end; ids count on from one to the next."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = list(sources)
        self._starts = np.cumsum([0, *map(len, self._sources)])
        self.tally = next((s.tally for s in self._sources if getattr(s, "tally", None)), None)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Record:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        start = int(self._starts[part])
        record = self._sources[part][index - start]
        return {**record, "id": record["id"] + start}

    def take(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return self._gather(indices, lambda source, rows, _: take(source, rows))

    def draw(self, indices: Sequence[int] | np.ndarray, draws: np.ndarray) -> Batch:
        return self._gather(indices, lambda source, rows, places: draw(source, rows, draws[places]))

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        parts = [labels_of(s) for s in self._sources]
        ids = [ids + start for (_, ids), start in zip(parts, self._starts, strict=False)]
        return np.concatenate([label for label, _ in parts]), np.concatenate(ids).astype(np.int32)

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        parts = [classes_of(s) for s in self._sources]
        starts = np.cumsum([0, *(len(classes) for classes, _ in parts[:-1])])
        ends = [offsets[1:] + start for (_, offsets), start in zip(parts, starts, strict=True)]
        return np.concatenate([classes for classes, _ in parts]), np.concatenate([[0], *ends])

    def _gather(self, indices, read) -> Batch:
        """`read(source, its rows, their places in the batch)` of each source that has some, put in order."""
        rows = np.asarray(indices, np.int64)
        part = np.searchsorted(self._starts, rows, side="right") - 1
        batch = None
        for p in np.unique(part):
            places = np.flatnonzero(part == p)
            found = read(self._sources[p], rows[places] - self._starts[p], places)
            found = {**found, "id": found["id"] + np.int32(self._starts[p])}
            if len(places) == len(rows):
                return found
            batch = batch or map_batch(lambda a: np.zeros((len(rows), *a.shape[1:]), a.dtype), found)
            _put(batch, found, places)
        return batch


class Mixed(Joined):
    """Sources mixed by `weights`: training draws from each in that proportion, each in epochs of its own."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]):
        super().__init__(sources)
        endless = [grain.MapDataset.range(_ENDLESS).map(partial(_tagged, p)) for p in range(len(self._sources))]
        self._mix = grain.MapDataset.mix(endless, weights)

    def order_at(self, seed: int, positions: np.ndarray) -> np.ndarray:
        """Record indices int64 at `positions`: source and place in it by grain's mixture, then that epoch's order."""
        part, place = np.array([self._mix[int(p)] for p in positions], np.int64).reshape(-1, 2).T
        order = np.zeros(len(part), np.int64)
        for p in np.unique(part):
            own = order_at(len(self._sources[p]), fold_seed(seed, "source", int(p)), place[part == p])
            order[part == p] = own + self._starts[p]
        return order


def _tagged(part: int, place: int) -> tuple[int, int]:
    return part, place


def _put(batch: Batch, found: Batch, places: np.ndarray) -> None:
    for key, value in found.items():
        if isinstance(value, dict):
            _put(batch[key], value, places)
        else:
            batch[key][places] = value
