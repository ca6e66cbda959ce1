"""How one leaf of ours is made of published tensors, and how they come back: pairs of exact inverses.

Ours: kernels [in, out]; patch vectors (row, column, channel); spectrograms time-major, patch vectors (time, mel).
Torch: weights [out, in]; patch kernels [out, channel, row, column]. CAV-MAE sees a spectrogram as a picture whose rows
are mels and whose columns are times.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Transform(NamedTuple):
    """`into`(published arrays of a group) -> our array; `back`(our array) -> tuple of published arrays."""

    into: Callable[..., np.ndarray]
    back: Callable[[np.ndarray], tuple[np.ndarray, ...]]


def one(into: Callable, back: Callable) -> Transform:
    """A transform of a single tensor."""
    return Transform(into, lambda ours: (back(ours),))


SAME = one(lambda a: a, lambda a: a)
TRANSPOSE = one(lambda a: a.T, lambda a: a.T)
FIRST = one(lambda a: a[0], lambda a: a[None])  # [1, n, D] <-> [n, D]
ROW = one(lambda a: a[None], lambda a: a[0])  # [D] <-> [1, D]


def patch_kernel(channels: int, rows: int, columns: int) -> Transform:
    """[D, C, rows, columns] <-> [rows * columns * C, D]."""
    return one(
        lambda w: w.transpose(2, 3, 1, 0).reshape(rows * columns * channels, -1),
        lambda k: k.reshape(rows, columns, channels, -1).transpose(3, 2, 0, 1),
    )


def spectrogram_kernel(mels: int, times: int) -> Transform:
    """[D, 1, mels, times] <-> [times * mels, D]."""
    return one(
        lambda w: w[:, 0].transpose(2, 1, 0).reshape(times * mels, -1),
        lambda k: k.reshape(times, mels, -1).transpose(2, 1, 0)[:, None],
    )


def spectrogram_table(mels: int, times: int) -> Transform:
    """Positions [1, mels * times, D], mel-major <-> [times * mels, D], time-major."""
    return one(
        lambda a: a.reshape(mels, times, -1).transpose(1, 0, 2).reshape(mels * times, -1),
        lambda a: a.reshape(times, mels, -1).transpose(1, 0, 2).reshape(1, mels * times, -1),
    )


def spectrogram_output(mels: int, times: int) -> Transform:
    """Weights [mels * times, D] of a predicted patch <-> kernel [D, times * mels]."""
    return one(
        lambda w: w.reshape(mels, times, -1).transpose(1, 0, 2).reshape(mels * times, -1).T,
        lambda k: k.T.reshape(times, mels, -1).transpose(1, 0, 2).reshape(mels * times, -1),
    )


def spectrogram_output_bias(mels: int, times: int) -> Transform:
    """Bias [mels * times] of a predicted patch <-> [times * mels]."""
    return one(lambda b: b.reshape(mels, times).T.reshape(-1), lambda b: b.reshape(times, mels).T.reshape(-1))


def heads_kernel(heads: int) -> Transform:
    """Three of [D, heads, d] (query, key, value) <-> [D, 3 * heads * d]."""
    return Transform(
        lambda *qkv: np.concatenate([a.reshape(len(a), -1) for a in qkv], axis=1),
        lambda k: tuple(a.reshape(len(a), heads, -1) for a in np.split(k, 3, axis=1)),
    )


def heads_bias(heads: int) -> Transform:
    """Three of [heads, d] <-> [3 * heads * d]."""
    return Transform(
        lambda *qkv: np.concatenate([a.reshape(-1) for a in qkv]),
        lambda b: tuple(a.reshape(heads, -1) for a in np.split(b, 3)),
    )


def heads_out(heads: int) -> Transform:
    """[heads, d, D] <-> [heads * d, D]."""
    return one(lambda w: w.reshape(-1, w.shape[-1]), lambda k: k.reshape(heads, -1, k.shape[-1]))
