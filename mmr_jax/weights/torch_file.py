"""Tensors of the zip archives that torch.save and torch.jit.save write, read without torch.

Such an archive holds `<root>/data.pkl`, which says how each tensor lies in a storage (type, offset, size, strides), and
the storages as raw bytes in `<root>/data/<key>`.
"""

import math
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from mmr_jax.errors import UserError
from mmr_jax.weights import pickled
from mmr_jax.weights.inert import Persistent, Record

TYPES = {
    "Float": np.float32, "Double": np.float64, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
}  # fmt: skip
DTYPES = {**{np.dtype(t).name: t for t in TYPES.values()}, "half": np.float16, "float": np.float32, "long": np.int64}
DTYPES |= {name: np.dtype(name) for name in ("uint16", "uint32", "uint64")}
WRAPPERS = ("model", "state_dict", "model_state_dict", "module")
V2, V3, PARAMETER = (f"torch._utils._rebuild_{name}" for name in ("tensor_v2", "tensor_v3", "parameter"))
DEPTH = 64


def read_torch(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
    """{name: array} of an opened archive. What is no tensor beside the weights (epoch, optimiser, ..) is left out."""
    pickle = min((name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"), key=len)
    root = pickle.removesuffix("data.pkl")
    if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder").strip() != b"little":
        raise UserError(f"{path}: it was saved on a big-endian machine; save it again on a little-endian one")
    payload = pickled.read(archive.read(pickle), str(path))
    storages = _Storages(archive, root, path)
    return {name: storages.tensor(record, name) for name, record in _state(payload, path).items()}


def _is_tensor(value: object) -> bool:
    return isinstance(value, Record) and value.name in (V2, V3, PARAMETER)


def _state(payload: object, path: Path) -> dict[str, Record]:
    """The state dict within a payload: itself, below one of `WRAPPERS`, or the attributes of a TorchScript module."""
    found = {}
    if isinstance(payload, Record) and payload.name.startswith("__torch__."):
        found = _attributes(payload)
    for _ in range(DEPTH):
        if not isinstance(payload, dict):
            break
        found = {name: value for name, value in payload.items() if isinstance(name, str) and _is_tensor(value)}
        inner = next((payload[name] for name in WRAPPERS if isinstance(payload.get(name), dict)), None)
        if found or inner is None:
            break
        payload = inner
    if not found:
        raise UserError(f"{path}: it holds no tensors by name, neither by itself nor under {', '.join(WRAPPERS)}")
    return found


def _attributes(module: Record) -> dict[str, Record]:
    """{"visual.conv1.weight": tensor} by walking attributes; a module met before is not entered again."""
    found, seen, todo = {}, set(), [("", module)]
    while todo:
        prefix, record = todo.pop()
        if id(record) in seen or not isinstance(record.state, dict):
            continue
        seen.add(id(record))
        for name, value in record.state.items():
            if _is_tensor(value):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Record):
                todo.append((f"{prefix}{name}.", value))
    return found


class _Storages:
    """The raw bytes of an archive; each storage is read once, when a tensor needs it."""

    def __init__(self, archive: zipfile.ZipFile, root: str, path: Path):
        self.archive, self.root, self.path, self.read = archive, root, path, {}

    def tensor(self, record: Record, name: str) -> np.ndarray:
        """The array of a rebuild record; a view is copied into rows if it is not contiguous."""
        try:
            for _ in range(DEPTH):
                if record.name != PARAMETER:
                    break
                record = record.args[0]
            storage, offset, size, strides = record.args[:4]
            dtype = record.args[6].name.removeprefix("torch.") if record.name == V3 else None
            return _view(self.storage(storage, dtype), offset, tuple(size), tuple(strides))
        except UserError as error:
            raise UserError(f"{self.path}: tensor {name!r} {error}") from None
        except pickled.DAMAGE as error:
            raise UserError(f"{self.path}: tensor {name!r} is described in a way torch does not ({error})") from None

    def storage(self, reference: Persistent, dtype: str | None) -> np.ndarray:
        """Flat array of a storage from ("storage", type, key, device, count)."""
        kind, type_, key, _, count = reference.id[:5]
        type_name = type_.name.split(".")[-1].removesuffix("Storage")
        type_ = DTYPES.get(dtype) if dtype else TYPES.get(type_name)
        if kind != "storage" or type_ is None:
            raise UserError(f"has the type {dtype or type_name}, which is not supported; save it as float32")
        if key not in self.read:
            try:
                self.read[key] = self.archive.read(f"{self.root}data/{key}")
            except KeyError:
                raise UserError(f"has no data (entry data/{key} is absent); download the file again") from None
        raw, itemsize = self.read[key], np.dtype(type_).itemsize
        needed = count if dtype else count * itemsize  # an untyped storage counts bytes
        if not 0 <= needed <= len(raw):
            raise UserError(f"needs {needed} bytes of storage {key}, which has {len(raw)}; download the file again")
        return np.frombuffer(raw, type_, count=needed // itemsize)


def _view(flat: np.ndarray, offset: int, size: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """The tensor that lies in `flat` from `offset` on, strides in elements; UserError if any of it lies outside."""
    numbers = (offset, *size, *strides)
    if len(size) != len(strides) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise UserError(f"has an impossible layout: offset {offset}, size {size}, strides {strides}")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, strides, strict=True))
    if count > flat.size or (count and last >= flat.size):
        raise UserError(f"reaches outside its storage: size {size}, strides {strides}, {flat.size} elements")
    if not count:
        return np.zeros(size, flat.dtype)
    steps = [step * flat.itemsize for step in strides]
    return np.asarray(np.lib.stride_tricks.as_strided(flat[offset:], size, steps), order="C")
