"""The index of a prepared split: what is known of its records without reading them."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmr_jax.data.prepare.layout import index_name, label_columns
from mmr_jax.data.prepare.records import MODALITIES
from mmr_jax.errors import UserError


class Index:
    """Columns in the order of the records, each read when it is first asked for.

    id, source (unicode), duration float32: [N]; present bool [N, 3] (columns as records.MODALITIES).
    """

    def __init__(self, folder: Path, split: str, size: int, classes: Mapping[str, Sequence[str]]):
        self._path, self._size, self._classes = folder / index_name(split), size, classes
        self._columns: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            shape = (self._size, len(MODALITIES)) if name == "present" else (self._size,)
            self._columns[name] = self._read(name, shape)
        return self._columns[name]

    def labels(self, label_set: str) -> tuple[np.ndarray, np.ndarray]:
        """Classes int32 [K] of all records, one after another, and where each record's begin, int64 [N + 1]."""
        label, offset = label_columns(label_set)
        if label not in self._columns:
            classes, starts = self._read(label), self._read(offset, (self._size + 1,))
            if starts[0] != 0 or starts[-1] != len(classes) or (np.diff(starts) < 0).any():
                raise self._damaged(f"{label} and {offset} do not fit")
            if len(classes) and not 0 <= classes.min() <= classes.max() < len(self._classes[label_set]):
                raise self._damaged(f"{label} has classes outside 0 to {len(self._classes[label_set]) - 1}")
            self._columns |= {label: classes, offset: starts}
        return self._columns[label], self._columns[offset]

    def check(self) -> None:
        """UserError if any column cannot be that of the split."""
        for name in ("id", "source", "present"):
            self[name]
        if not np.isfinite(self["duration"]).all():
            raise self._damaged("duration has values that are no numbers")
        for label_set in self._classes:
            self.labels(label_set)

    def _read(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        try:
            with np.load(self._path) as file:
                column = file[name]
        except FileNotFoundError:
            raise self._damaged("it is missing") from None
        except KeyError:
            raise self._damaged(f"{name} is absent") from None
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise self._damaged(str(error)) from None
        if shape and column.shape != shape:
            raise self._damaged(f"{name} is {column.shape}, expected {shape}")
        return column

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{self._path} is damaged ({why}); delete the folder and run mmr prepare again")
