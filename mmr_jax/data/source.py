"""Sources: random access to multimodal records, and the batches that records stack into.

A record is `{"inputs": {m: array}, "present": {m: bool}, "length": {m: int}, "label", "id"}` with arrays of
one fixed shape per modality: audio int16 `[samples]`, image uint8 `[H, W, C]`, video uint8 `[F, H, W, C]`,
text int32 `[length]`. `length` counts valid samples, tokens or frames (1 for an image). A missing modality
is `present` False with length 0 and zero inputs. `label` is an int, or float32 `[C]` for multi-label data.

A batch is the same with a leading axis `[B]`, plus `weight` float32 `[B]`, where 0 marks padding.
"""

import dataclasses
import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mmr_jax.data.unreadable import Tally
from mmr_jax.errors import UserError, nearest

Record = dict[str, Any]
Batch = dict[str, Any]

_MODULES = {name: f"mmr_jax.data.{name}" for name in ("synthetic", "avdigits", "prepared")}
_CHUNK = 256  # records that `Cached` decodes at a time


class Source(Protocol):
    """Random access to records.

    A source may also have `take(indices) -> Batch` (a faster way to many), `draw(indices, draws) -> Batch` (records as
    training sees them: `draws` uint64 `[B]` decide where they are cropped), `labels() -> (label, id)` and `classes() ->
    (classes, offsets)` of all records without their media (see `labels_of`, `classes_of`), and `order_at(seed,
    positions) -> indices` (another order of training than a shuffled one).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set and how it is scored.

    `splits` has "unlabelled", "labelled", "val", "test" and maybe further test sets; `metric` is "top1" or
    "map"; `fingerprint` names the content of the files that the records come from ("" where the configuration says
    all), so that the digest of every stage holds it; `notes` are sentences for the report (sizes, origin, licence);
    `words` are what hashed words are looked up in when they are shown; `tally` counts what could not be read.
    """

    name: str
    modalities: tuple[str, ...]
    splits: dict[str, Source]
    class_names: tuple[str, ...]
    metric: str = "top1"
    multilabel: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)
    fingerprint: str = ""
    words: tuple[str, ...] = ()
    tally: Tally | None = None


def load_dataset(data_config: Mapping[str, Any], modalities_config: Mapping[str, Any]) -> Dataset:
    """The data set that `data_config["name"]` names, with the shapes that `modalities_config` asks for."""
    return _module(data_config.get("name", "")).load(data_config, modalities_config)


def default_config(name: str) -> dict[str, Any]:
    """The data configuration of the data set `name`, every key with its default."""
    return _module(name).default_config()


def later_fields(name: str) -> dict[str, tuple[str, ...]]:
    """Options of the data set `name` that a kind of stage does not depend on: {"pretrain": ..., "train": ...}."""
    return getattr(_module(name), "LATER", {})


def complete(data_config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` overlaid with `data_config`; a key that `defaults` lacks is a UserError."""
    for key in data_config:
        if key not in defaults:
            raise UserError(f"data.{key} is no option of data set {defaults['name']!r}{nearest(key, defaults)}")
    return {key: data_config.get(key, value) for key, value in defaults.items()}


def stack(records: Sequence[Record]) -> Batch:
    """Stacks records along a new leading axis; every weight is 1."""
    if not records:
        raise UserError("cannot stack a batch of no records")
    first = records[0]
    label_dtype = np.float32 if np.ndim(first["label"]) else np.int32
    return {
        "inputs": {m: np.stack([r["inputs"][m] for r in records]) for m in first["inputs"]},
        "present": {m: np.array([r["present"][m] for r in records], np.bool_) for m in first["present"]},
        "length": {m: np.array([r["length"][m] for r in records], np.int32) for m in first["length"]},
        "label": np.array([r["label"] for r in records], label_dtype),
        "weight": np.ones(len(records), np.float32),
        "id": np.array([r["id"] for r in records], np.int32),
    }


def take(source: Source, indices: Sequence[int] | np.ndarray) -> Batch:
    """The records at `indices`, stacked. Data that cannot be read is a UserError that names the record."""
    if hasattr(source, "take"):
        return source.take(indices)
    return stack([_read(source, int(i)) for i in indices])


def draw(source: Source, indices: Sequence[int] | np.ndarray, draws: np.ndarray) -> Batch:
    """The records at `indices` as training sees them; without a random part of its own the source's are as ever."""
    return source.draw(indices, draws) if hasattr(source, "draw") else take(source, indices)


def labels_of(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """(label int32 [N] or float32 [N, C], id int32 [N]) of all records, in order.

    A source that has no `labels` is read once in full.
    """
    if hasattr(source, "labels"):
        return source.labels()
    parts = [take(source, chunk) for chunk in np.array_split(np.arange(len(source)), -(-len(source) // _CHUNK))]
    return np.concatenate([p["label"] for p in parts]), np.concatenate([p["id"] for p in parts])


def classes_of(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Classes int [K] of all records, one after another, and where each record's begin, int64 [N + 1].

    A dense array of millions of examples by hundreds of classes would not fit into memory.
    """
    if hasattr(source, "classes"):
        return source.classes()
    return ragged(labels_of(source)[0])


def ragged(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(classes, offsets) of labels int [N] or float [N, C], see `classes_of`."""
    if labels.ndim == 1:
        return labels, np.arange(len(labels) + 1)
    return np.nonzero(labels)[1], np.concatenate([[0], np.cumsum((labels > 0).sum(1))])


def map_batch(function: Callable[[np.ndarray], np.ndarray], batch: Batch) -> Batch:
    """Applies `function` to every array of a batch."""
    return {k: map_batch(function, v) if isinstance(v, dict) else function(v) for k, v in batch.items()}


class View:
    """A source made of another one: what a subclass does not change is as it is there."""

    def __init__(self, source: Source):
        self._source = source
        self.tally = getattr(source, "tally", None)  # see unreadable.py

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        return self._source[index]

    def take(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return take(self._source, indices)

    def draw(self, indices: Sequence[int] | np.ndarray, draws: np.ndarray) -> Batch:
        return draw(self._source, indices, draws)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        return labels_of(self._source)

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        return classes_of(self._source)


class Subset(View):
    """The records of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray):
        super().__init__(source)
        self._indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self._indices[index])]

    def take(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return super().take(self._indices[np.asarray(indices, np.int64)])

    def draw(self, indices: Sequence[int] | np.ndarray, draws: np.ndarray) -> Batch:
        return super().draw(self._indices[np.asarray(indices, np.int64)], draws)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        label, ids = super().labels()
        return label[self._indices], ids[self._indices]

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        return gather(*super().classes(), self._indices)


def gather(classes: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(classes, offsets) of some records, see `classes_of`."""
    counts = np.diff(offsets)[rows]
    ends = np.concatenate([[0], np.cumsum(counts)])
    return classes[np.repeat(offsets[rows] - ends[:-1], counts) + np.arange(ends[-1])], ends


class Cached:
    """Decodes every record of `source` once, on first use, and serves batches by fancy indexing.

    Holds the whole split in memory. Rows of absent modalities are never written, so they take address space
    but no memory.
    """

    def __init__(self, source: Source):
        self._source = source
        self.tally = getattr(source, "tally", None)
        self._lock = threading.Lock()
        self._arrays: Batch | None = None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return _record(map_batch(lambda a: a[index], self._filled()))

    def take(self, indices: Sequence[int] | np.ndarray) -> Batch:
        rows = np.asarray(indices, np.int64)
        return map_batch(lambda a: a[rows], self._filled())

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        if hasattr(self._source, "labels"):
            return self._source.labels()
        arrays = self._filled()
        return arrays["label"], arrays["id"]

    def _filled(self) -> Batch:
        with self._lock:  # reading threads arrive together; one decodes, the others wait
            if self._arrays is None:
                self._arrays = _decode_all(self._source)
        return self._arrays


def _module(name: str) -> Any:
    if name not in _MODULES:
        raise UserError(f"data.name is {name!r}, which is no data set{nearest(name, _MODULES)}")
    return importlib.import_module(_MODULES[name])


def _read(source: Source, index: int) -> Record:
    try:
        return source[index]
    except UserError:
        raise  # already one clear line
    except (ValueError, OSError, EOFError, RuntimeError) as error:
        raise UserError(f"record {index} cannot be read: {type(error).__name__}: {error}") from error
    except Exception as error:
        error.add_note(f"while reading record {index}")
        raise


def _decode_all(source: Source) -> Batch:
    if not len(source):
        raise UserError("cannot read from an empty source")
    arrays = None
    for start in range(0, len(source), _CHUNK):
        chunk = take(source, range(start, min(start + _CHUNK, len(source))))
        if arrays is None:
            arrays = map_batch(lambda a: np.zeros((len(source), *a.shape[1:]), a.dtype), chunk)
        _write_rows(arrays, chunk, start)
    return arrays


def _write_rows(arrays: Batch, chunk: Batch, start: int) -> None:
    rows = slice(start, start + len(chunk["id"]))
    for key, value in chunk.items():
        if key == "inputs":
            for m, array in value.items():
                present = chunk["present"][m]
                arrays[key][m][rows][present] = array[present]
        elif isinstance(value, dict):
            for m, array in value.items():
                arrays[key][m][rows] = array
        else:
            arrays[key][rows] = value


def _record(row: Batch) -> Record:
    label = row["label"]
    return {
        "inputs": {m: array.copy() for m, array in row["inputs"].items()},
        "present": {m: bool(flag) for m, flag in row["present"].items()},
        "length": {m: int(n) for m, n in row["length"].items()},
        "label": label.copy() if np.ndim(label) else int(label),
        "id": int(row["id"]),
    }
