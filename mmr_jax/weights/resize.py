"""Tables of one vector per place of a grid, resized to another grid."""

import math
from collections.abc import Sequence

import numpy as np

from mmr_jax.errors import UserError

CUBIC = -0.75  # the constant of torch's bicubic interpolation, with which ViTs are usually resized


def resize(
    table: np.ndarray, before: Sequence[int], after: Sequence[int], method: str = "bilinear"
) -> np.ndarray | None:
    """Table [tokens, D] on the grid `before` -> on the grid `after`, of as many axes, or one more in front (repeated).

    None for other numbers of axes.
    """
    if method not in ("bilinear", "bicubic"):
        raise UserError(f"method {method!r}: choose bilinear or bicubic")
    lead, after = tuple(after[: len(after) - len(before)]), tuple(after)[len(after) - len(before) :]
    if len(after) != len(before) or len(lead) > 1:
        return None
    x = table.reshape(*before, -1).astype(np.float64)
    for axis, (n, m) in enumerate(zip(before, after, strict=True)):
        x = np.moveaxis(np.tensordot(_weights(n, m, method), x, axes=(1, axis)), 0, axis)
    flat = x.reshape(math.prod(after), -1)
    return np.tile(flat, (math.prod(lead), 1)).astype(table.dtype)


def _weights(before: int, after: int, method: str) -> np.ndarray:
    """[after, before]: each new place as a mix of old ones; places outside repeat the edge."""
    centre = (np.arange(after) + 0.5) * before / after - 0.5
    low = np.floor(centre).astype(int)
    matrix = np.zeros((after, before))
    for tap in (0, 1) if method == "bilinear" else (-1, 0, 1, 2):
        distance = np.abs(centre - low - tap)
        weight = 1 - distance if method == "bilinear" else _cubic(distance)
        np.add.at(matrix, (np.arange(after), np.clip(low + tap, 0, before - 1)), weight)
    return matrix


def _cubic(x: np.ndarray) -> np.ndarray:
    near = (CUBIC + 2) * x**3 - (CUBIC + 3) * x**2 + 1
    far = CUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, far)
