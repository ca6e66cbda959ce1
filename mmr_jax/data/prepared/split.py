"""Records of a prepared split as a source: read, decoded and cut when they are asked for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmr_jax.data.draws import splitmix64, unit
from mmr_jax.data.prepare.records import Example
from mmr_jax.data.prepared.folder import Split
from mmr_jax.data.prepared.inputs import CHANCES, READERS, STORED_AS, UNREADABLE, reason, shape_of
from mmr_jax.data.source import Batch, Record, map_batch
from mmr_jax.data.unreadable import Tally
from mmr_jax.errors import UserError


class Wanted(NamedTuple):
    """What is read of an example: modalities (name -> config), a text set, and what to do with what cannot be read (see
    unreadable.py)."""

    modalities: Mapping[str, Mapping[str, Any]]
    text: str
    policy: str
    tally: Tally


class PreparedSplit:
    """All records of a split; labels are added by `labelled.Labelled`, here they are 0."""

    def __init__(self, split: Split, wanted: Wanted):
        self._split, self._wanted, self.tally = split, wanted, wanted.tally

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = self.take([index])
        record = {key: batch[key] for key in ("inputs", "present", "length", "label", "id")}
        return map_batch(lambda a: a[0] if a.ndim > 1 else a[0].item(), record)

    def take(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return self._batch(indices, None)

    def draw(self, indices: Sequence[int] | np.ndarray, draws: np.ndarray) -> Batch:
        return self._batch(indices, unit(splitmix64(np.asarray(draws)[:, None], np.arange(CHANCES))))

    def _batch(self, indices: Sequence[int] | np.ndarray, chances: np.ndarray | None) -> Batch:
        """The records at `indices`, `chances` float64 [B, CHANCES] or None in evaluation."""
        batch = self._blank(indices, training=chances is not None)
        given = [None] * len(indices) if chances is None else chances
        lost = [self._read(batch, i, int(index), given[i]) for i, index in enumerate(indices)]
        if self._wanted.policy != "error":
            batch["unreadable"] = np.array(lost, np.bool_)
        return batch

    def _blank(self, indices: Sequence[int] | np.ndarray, training: bool) -> Batch:
        """A batch without any modality: zeros, which cost nothing until they are written to."""
        size, names = len(indices), self._wanted.modalities
        shapes = {m: shape_of(spec, training) for m, spec in names.items()}
        return {
            "inputs": {m: np.zeros((size, *shape), dtype) for m, (shape, dtype) in shapes.items()},
            "present": {m: np.zeros(size, np.bool_) for m in names},
            "length": {m: np.zeros(size, np.int32) for m in names},
            "label": np.zeros(size, np.int32),
            "weight": np.ones(size, np.float32),
            "id": np.array(indices, np.int32),
        }

    def _read(self, batch: Batch, place: int, index: int, chance: np.ndarray | None) -> bool:
        """Reads a record into row `place` of a blank batch; whether something of it could not be read."""
        lost = []
        try:
            example = self._split[index]
        except ValueError as error:
            self._refuse(index, "it", error)
            lost, example = list(self._wanted.modalities), None
        for m, spec in self._wanted.modalities.items() if example else ():
            try:
                length = self._write(batch["inputs"][m][place], example, spec, chance)
            except UNREADABLE as error:
                self._refuse(index, m, error)
                lost.append(m)
                continue
            batch["length"][m][place], batch["present"][m][place] = length, length > 0
        skipped = bool(lost) and self._wanted.policy == "skip"
        _clear(batch, place, self._wanted.modalities if skipped else lost)
        batch["weight"][place] = 0.0 if skipped else 1.0
        return bool(lost)

    def _write(self, out: np.ndarray, example: Example, spec: Mapping[str, Any], chance: np.ndarray | None) -> int:
        """Writes the input of a modality; its length, 0 where the example has none."""
        if spec["kind"] == "text":
            example["text"] = [t for t in example["texts"].get(self._wanted.text, ()) if t.strip()]
        stored = example[STORED_AS[spec["kind"]]]
        return READERS[spec["kind"]](example, spec, chance, out) if len(stored) else 0

    def _refuse(self, row: int, what: str, error: Exception) -> None:
        """An error, or a line that says what is left out."""
        line = f"{self._split.place(row)}: {what} cannot be read: {reason(error)}"
        if self._wanted.policy == "error":
            raise UserError(f"{line}; prepare the data again, or set data.on_unreadable to skip or missing")
        self.tally.tell(f"{line} ({'left out' if self._wanted.policy == 'skip' else 'taken for missing'})")


def _clear(batch: Batch, place: int, names: Iterable[str]) -> None:
    """Makes modalities absent in row `place`."""
    for m in names:
        batch["inputs"][m][place] = 0
        batch["length"][m][place], batch["present"][m][place] = 0, False
