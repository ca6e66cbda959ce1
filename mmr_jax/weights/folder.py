"""The folder that `mmr convert` writes.

params.safetensors   our parameters by flat path, float32
aside.safetensors    tensors without a place among them, under their published names
weights.json         what they are: see `Converted.info`
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mmr_jax import tree
from mmr_jax.errors import UserError
from mmr_jax.weights.convert import FORMAT, Converted, find_kind
from mmr_jax.weights.read import read_tensors

PARAMS, ASIDE, CARD = "params.safetensors", "aside.safetensors", "weights.json"
READABLE = 0o644  # safetensors makes its files the owner's alone


def save_converted(converted: Converted, directory: str | Path) -> None:
    """Write the folder, all of it or nothing. UserError if the path is taken."""
    target = Path(directory)
    _check_free(target)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as temporary:
        draft = Path(temporary) / "weights"
        draft.mkdir()
        save_file(_contiguous(tree.flatten(converted.params)), draft / PARAMS)
        save_file(_contiguous(converted.aside), draft / ASIDE)
        (draft / CARD).write_text(json.dumps(converted.info, indent=1))
        for file in draft.iterdir():
            file.chmod(READABLE)
        draft.replace(target)


def load_converted(directory: str | Path) -> Converted:
    """The folder as it was saved. UserError if it is none, incomplete, or of another version."""
    folder = Path(directory)
    if not (folder / CARD).is_file():
        raise UserError(f"{folder} holds no converted weights ({CARD} is absent); make it with mmr convert")
    try:
        info = json.loads((folder / CARD).read_text())
        version, kind = info["format"], info["from"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / CARD} is damaged ({error}); convert the checkpoint again") from None
    if version != FORMAT:
        raise UserError(f"{folder} is of format {version}, this version reads {FORMAT}; convert the checkpoint again")
    find_kind(kind)
    params, aside = read_tensors(folder / PARAMS), read_tensors(folder / ASIDE)
    if params.keys() != info["account"]["used"].keys() or sorted(aside) != info["account"]["aside"]:
        raise UserError(f"{folder}: its tensors are not those that {CARD} lists; convert the checkpoint again")
    return Converted(tree.unflatten(params), aside, info)


def save_tensors(tensors: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Write one safetensors file, all of it or nothing. UserError if the path is taken."""
    target = Path(path)
    _check_free(target)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as temporary:
        draft = Path(temporary) / "tensors"
        save_file(_contiguous(tensors), draft)
        draft.chmod(READABLE)
        draft.replace(target)


def _check_free(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target} exists already; give another --output or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)


def _contiguous(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """safetensors writes the memory of an array as it lies."""
    return {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
