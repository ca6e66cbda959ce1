"""Records of a prepared split as a source: read, decoded and cut when they are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmr_jax.data.draws import splitmix64, unit
from mmr_jax.data.prepared.folder import Split
from mmr_jax.data.prepared.inputs import CHANCES, READERS, STORED_AS, blank
from mmr_jax.data.source import Batch, Record, stack
from mmr_jax.data.unreadable import Tally
from mmr_jax.errors import UserError


class Wanted(NamedTuple):
    """What is read of an example: modalities (name -> config), a label set ("" for none), its number of classes, a text
    set, and what to do with what cannot be read (see unreadable.py)."""

    modalities: Mapping[str, Mapping[str, Any]]
    label: str
    classes: int
    multilabel: bool
    text: str
    policy: str
    tally: Tally


class PreparedSplit:
    """The records of `rows` int64 [N] of a split."""

    def __init__(self, split: Split, rows: np.ndarray, wanted: Wanted):
        self._split, self._rows, self._wanted, self.tally = split, rows, wanted, wanted.tally

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._record(index, None)[0]

    def take(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return self._batch([self._record(int(i), None) for i in indices])

    def draw(self, indices: Sequence[int] | np.ndarray, draws: np.ndarray) -> Batch:
        chances = unit(splitmix64(np.asarray(draws)[:, None], np.arange(CHANCES)))
        return self._batch([self._record(int(i), chance) for i, chance in zip(indices, chances, strict=True)])

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels and ids from the index, without the media."""
        found = [self._label(i) for i in range(len(self))]
        return np.array(found, np.float32 if self._wanted.multilabel else np.int32), np.arange(
            len(self), dtype=np.int32
        )

    def _label(self, index: int) -> np.ndarray | int:
        """The class, or float32 [C] of 0 and 1; of an example without labels 0."""
        wanted, row = self._wanted, self._rows[index]
        classes = labels_at(self._split, wanted.label, row) if wanted.label else np.zeros(0, np.int64)
        if not wanted.multilabel:
            return int(classes[0]) if len(classes) else 0
        label = np.zeros(wanted.classes, np.float32)
        label[classes] = 1.0
        return label

    def _batch(self, read: list[tuple[Record, bool]]) -> Batch:
        batch = stack([record for record, _ in read])
        if self._wanted.policy != "error":
            batch["unreadable"] = np.array([lost for _, lost in read])
        if self._wanted.policy == "skip":
            batch["weight"][batch["unreadable"]] = 0.0
        return batch

    def _record(self, index: int, chance: np.ndarray | None) -> tuple[Record, bool]:
        """The record, and whether something of it could not be read."""
        row, record = int(self._rows[index]), self._absent(index, chance)
        try:
            example = self._split[row]
        except ValueError as error:
            self._refuse(row, "it", error)
            return record, True
        example["text"] = [t for t in example["texts"].get(self._wanted.text, ()) if t.strip()]
        lost = False
        for m, spec in self._wanted.modalities.items():
            if not len(example[STORED_AS[spec["kind"]]]):
                continue
            try:
                array, length = READERS[spec["kind"]](example, spec, chance)
            except (OSError, ValueError, SyntaxError) as error:  # Pillow has all three
                self._refuse(row, m, error)
                lost = True
                continue
            record["inputs"][m], record["length"][m], record["present"][m] = array, length, length > 0
        return (self._absent(index, chance) if lost and self._wanted.policy == "skip" else record), lost

    def _absent(self, index: int, chance: np.ndarray | None) -> Record:
        """A record without any modality."""
        names = self._wanted.modalities
        inputs = {m: blank(spec, training=chance is not None) for m, spec in names.items()}
        nothing = {"present": dict.fromkeys(names, False), "length": dict.fromkeys(names, 0)}
        return {"inputs": inputs, **nothing, "label": self._label(index), "id": index}

    def _refuse(self, row: int, what: str, error: Exception) -> None:
        """An error, or a line that says what is left out."""
        line = f"{self._split.place(row)}: {what} cannot be read: {error}"
        if self._wanted.policy == "error":
            raise UserError(f"{line}; prepare the data again, or set data.on_unreadable to skip or missing")
        print(f"{line} ({'left out' if self._wanted.policy == 'skip' else 'taken for missing'})")


def labels_at(split: Split, label: str, row: int) -> np.ndarray:
    """Classes int [k] of a record in a label set."""
    offset = split.index[f"offset-{label}"]
    return split.index[f"label-{label}"][offset[row] : offset[row + 1]]


def labelled_rows(split: Split, label: str, rows: np.ndarray) -> np.ndarray:
    """Those of `rows` that have a label in a label set."""
    return rows[np.diff(split.index[f"offset-{label}"])[rows] > 0]
