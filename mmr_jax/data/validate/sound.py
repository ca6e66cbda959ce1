"""Log-mel of clips of any length with one compiled program: a frame depends on no other, so blocks of frames do."""

import functools
from collections.abc import Iterator

import jax
import numpy as np

from mmr_jax.models.frontend import log_mel, num_frames

WINDOW_S, HOP_S = 0.025, 0.010
_BLOCK = 512  # frames


def log_mel_blocks(pcm: np.ndarray, rate: int, mels: int, window: str) -> Iterator[np.ndarray]:
    """The valid frames of int16 [n] as `models.frontend.log_mel` has them, in order: float32 [up to 512, mels]."""
    size, hop = round(rate * WINDOW_S), round(rate * HOP_S)
    frames, samples = num_frames(len(pcm), size, hop), (_BLOCK - 1) * hop + size
    for first in range(0, frames, _BLOCK):
        wave = np.zeros((1, samples), np.int16)
        part = pcm[first * hop : first * hop + samples]
        wave[0, : len(part)] = part
        yield np.asarray(_compiled(rate, mels, window)(wave))[0, : frames - first]


@functools.lru_cache(maxsize=4)
def _compiled(rate: int, mels: int, window: str):
    return jax.jit(functools.partial(log_mel, sample_rate=rate, num_mels=mels, window=window))


def on_cpu() -> None:
    """For worker processes: there is little to compute, and only one process at a time could open a TPU."""
    jax.config.update("jax_platforms", "cpu")
