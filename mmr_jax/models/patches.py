"""Patches and their positions: cutting arrays into patches and back, and fixed sin-cos tables."""

import math
from collections.abc import Sequence

import jax
import numpy as np

from mmr_jax.errors import UserError


def patchify(x: jax.Array, patch: tuple[int, ...]) -> jax.Array:
    """[B, n1, .., nk, C] -> [B, T, p1*..*pk*C]: non-overlapping patches, row-major, channel fastest."""
    grid = [n // p for n, p in zip(x.shape[1:-1], patch, strict=True)]
    k = len(patch)
    x = x.reshape(x.shape[0], *[v for pair in zip(grid, patch, strict=True) for v in pair], x.shape[-1])
    order = [0, *range(1, 2 * k, 2), *range(2, 2 * k + 1, 2), 2 * k + 1]
    return x.transpose(order).reshape(x.shape[0], math.prod(grid), -1)


def unpatchify(x: jax.Array, grid: tuple[int, ...], patch: tuple[int, ...]) -> jax.Array:
    """The inverse of `patchify`: [B, T, p1*..*pk*C] -> [B, n1, .., nk, C]."""
    k = len(patch)
    x = x.reshape(x.shape[0], *grid, *patch, -1)
    order = [0, *[axis for i in range(k) for axis in (1 + i, 1 + k + i)], 2 * k + 1]
    return x.transpose(order).reshape(x.shape[0], *[g * p for g, p in zip(grid, patch, strict=True)], x.shape[-1])


def patch_grid(name: str, shape: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    """Patches per axis; a size that the patch does not divide is a UserError."""
    if len(shape) != len(patch) or any(n % p for n, p in zip(shape, patch, strict=True)):
        raise UserError(f"modality {name!r}: size {shape} is not divisible by patch_size {patch}; change one of them")
    return tuple(n // p for n, p in zip(shape, patch, strict=True))


def sincos(grid: Sequence[int], axes: Sequence[int], width: int) -> np.ndarray:
    """Fixed positions float32 [prod(grid), width] (MAE, He et al. 2022; CAV-MAE, section 3).

    The width is shared out evenly over `axes` (indices into `grid`, in this order); each share is a block of sines
    and a block of cosines of place * 10000^(-i / n), i = 0 .. n - 1. Channels left over are zero.
    """
    half = width // (2 * len(axes))
    omega = 10000.0 ** (-np.arange(half) / half)
    places = np.indices(grid).reshape(len(grid), -1)
    angles = [places[axis][:, None] * omega for axis in axes]
    table = np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)
    return np.pad(table, ((0, 0), (0, width - table.shape[1]))).astype(np.float32)
