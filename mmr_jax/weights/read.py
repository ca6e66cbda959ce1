"""Reading a file of tensors, by its content: safetensors, npz, or a torch archive. Nothing in a file is ever run."""

import json
import math
import struct
import zipfile
import zlib
from pathlib import Path

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mmr_jax.errors import UserError
from mmr_jax.weights.torch_file import read_torch

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the number with which files of torch before 1.6 begin
EXPAND, SMALL = 50, 1 << 30


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of a file; names and dtypes (bfloat16 and float16 too) as they are in it.

    UserError, one line with the file's name, for a file that is absent, damaged, of another kind, or that would run
    code if it were loaded the way torch.load does.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file; give a .safetensors, .npz, .pt or .pth file")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise UserError(f"{path} is empty; download it again")
    if head[8:9] == b"{" and _length(head) <= path.stat().st_size - 8:  # first: a length may begin like a pickle
        return _safetensors(path)
    if head.startswith(ZIP):
        return _zip(path)
    if head.startswith(PICKLE):
        kind = "is in the format of torch before 1.6" if LEGACY in head else "is a bare pickle"
        raise UserError(f"{path} {kind}, which is not read; load it where you trust it and save it as safetensors")
    raise UserError(f"{path} is neither safetensors nor npz nor a torch archive, or only the start of one")


def _length(head: bytes) -> int:
    return int.from_bytes(head[:8], "little")


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, AttributeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged or cut off ({error}); download it again") from None


def _zip(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(archive, path)
            return _entries(archive, path)
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, OSError, RuntimeError) as error:
        raise UserError(f"{path} is a damaged or cut off archive ({error}); download it again") from None


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
    names = archive.namelist()
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return read_torch(archive, path)
    if names and all(name.endswith(".npy") for name in names):
        return {name.removesuffix(".npy"): _npy(archive, name, path) for name in names}
    raise UserError(f"{path} is a zip archive but neither npz nor written by torch")


def _check_size(archive: zipfile.ZipFile, path: Path) -> None:
    """An archive that unpacks to far more than it weighs is no checkpoint. No more is read than its directory says."""
    size, unpacked = path.stat().st_size, sum(entry.file_size for entry in archive.infolist())
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    if unpacked > (size if stored else max(SMALL, EXPAND * size)):
        raise UserError(f"{path} would unpack from {size} to {unpacked} bytes, more than weights can; it is refused")


def _npy(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """One array of an npz; objects (pickles) and headers that promise more than the entry holds are refused."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            if dtype.hasobject:
                raise UserError(f"{path}: array {name!r} holds Python objects, which would run code on loading")
            if math.prod(shape) * dtype.itemsize > size:
                raise ValueError(f"its header promises an array of shape {shape}")
            flat = np.frombuffer(file.read(), dtype, count=math.prod(shape))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{path}: array {name!r} is damaged ({error}); write the file again") from None
    return flat.reshape(shape, order="F" if fortran else "C")
