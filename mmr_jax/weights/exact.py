"""The exact step between tensors and leaves: names, shapes and types are checked, and every bit must come back."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np

from mmr_jax.errors import UserError, nearest
from mmr_jax.weights.mapping import Leaf, Table, Tensors

FLOATS = {np.dtype(t).name: np.dtype(t) for t in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)}


def check(table: Table, tensors: Tensors) -> None:
    """UserError unless the tensors are exactly those of the table, in its shapes."""
    expected = table.published()
    unknown = [name for name in tensors if name not in expected and name not in table.optional]
    missing = [name for name in expected if name not in tensors]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(
            f"{tensors.source}: unknown tensor {unknown[0]!r}{more}{nearest(unknown[0], missing or expected)}"
        )
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{tensors.source}: tensor {missing[0]!r} is missing{more}")
    for name, shape in expected.items():
        if tensors[name].shape != tuple(shape):
            raise UserError(f"{tensors.source}: {name} has shape {tensors[name].shape}, expected {tuple(shape)}")


def read_leaf(leaf: Leaf, tensors: Tensors) -> np.ndarray:
    """Our array, float32, after a look that the tensors come back from it bit for bit."""
    names = leaf.published()
    for name in names:
        if tensors[name].dtype.name not in FLOATS:
            raise UserError(f"{tensors.source}: {name} is {tensors[name].dtype}; parameters must be floating point")
    found = leaf.read({name: tensors[name].astype(np.float32, copy=False) for name in names})
    back = write_leaf(leaf, found, {name: tensors[name].dtype.name for name in names})
    for name in names:
        if back[name].tobytes() != tensors[name].tobytes():
            raise UserError(f"{tensors.source}: {name} is {tensors[name].dtype} with values that float32 cannot hold")
    return found


def write_leaf(leaf: Leaf, array: np.ndarray, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Our array -> published tensors in their dtypes."""
    try:
        made = leaf.write(array)
    except ValueError as error:
        raise UserError(
            f"parameter {leaf.path!r} of shape {array.shape} does not fit the checkpoint: {error}"
        ) from None
    for name, shape in leaf.published().items():
        if made[name].shape != tuple(shape):
            raise UserError(
                f"parameter {leaf.path!r} gives {name} of shape {made[name].shape}, expected {tuple(shape)}"
            )
    with np.errstate(over="ignore"):
        return {n: a.astype(FLOATS[dtypes.get(n, "float32")], copy=False) for n, a in made.items()}
