"""Which tokens masked pretraining hides (MAE, He et al. 2022; CAV-MAE, section 3, and its structured modes)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MODES = ("uniform", "time", "frequency", "time_frequency")
# time_frequency hides this part of the mask ratio in each of the two axes (published code).
_EACH = 0.7


def masking_noise(rng: jax.Array, mode: str, grid: tuple[int, ...], ratio: float, batch: int) -> jax.Array:
    """Noise float32 [B, T] whose smallest values stay visible: uniform in [0, 1), 1 more in what a mode hides.

    The structured modes are for the grid (time, mel) of a spectrogram: whole columns of time, rows of mel, or both.
    Where they hide more than the ratio allows, some of it stays visible after all; where less, more is drawn.
    """
    uniform_key, time_key, mel_key = jax.random.split(rng, 3)
    noise = jax.random.uniform(uniform_key, (batch, *grid))
    share = ratio * _EACH if mode == "time_frequency" else ratio
    hidden = jnp.zeros(noise.shape, bool)
    if mode in ("time", "time_frequency"):
        hidden |= _some(time_key, batch, grid[0], int(grid[0] * share))[:, :, None]
    if mode in ("frequency", "time_frequency"):
        hidden |= _some(mel_key, batch, grid[1], int(grid[1] * share))[:, None, :]
    return (noise + hidden).reshape(batch, -1)


def _some(rng: jax.Array, batch: int, size: int, chosen: int) -> jax.Array:
    """Boolean [B, size] with `chosen` true places per row, at random."""
    return jnp.argsort(jnp.argsort(jax.random.uniform(rng, (batch, size)), axis=1), axis=1) < chosen


def kept(count: int, ratio: float) -> int:
    """How many of `count` patches stay visible: int(count (1 - ratio)), but one where there are any."""
    return max(int(count * (1 - ratio)), min(count, 1))


class Hidden(NamedTuple):
    """What masking leaves of one sequence, made of the patches of one modality or of several.

    tokens [B, skip + keep, D]: class tokens, then patches in the order of the noise; mask bool [B, skip + keep];
    rank int32 [B, T] of every patch in that order; visible and exists bool [B, T].
    """

    tokens: jax.Array
    mask: jax.Array
    rank: jax.Array
    visible: jax.Array
    exists: jax.Array


def hide(tokens: jax.Array, mask: jax.Array, skip: int, noise: jax.Array, ratio: float) -> Hidden:
    """Keep the patches with the smallest noise: tokens [B, skip + T, D] and mask bool [B, skip + T] -> `Hidden`.

    The first `skip` tokens (class tokens) always stay. Patches whose mask is False are never visible. An example with
    fewer patches keeps its own share, so its last kept places are empty (mask False); shapes are static.
    """
    exists, total = mask[:, skip:], tokens.shape[1] - skip
    table = np.array([kept(n, ratio) for n in range(total + 1)], np.int32)
    own = jnp.asarray(table)[jnp.sum(exists, axis=1)][:, None]
    order = jnp.argsort(jnp.where(exists, noise, jnp.inf), axis=1)
    rank = jnp.argsort(order, axis=1)
    keep = int(table[total])
    stays = jnp.take_along_axis(tokens, order[:, :keep, None] + skip, axis=1)
    return Hidden(
        jnp.concatenate([tokens[:, :skip], stays], axis=1),
        jnp.concatenate([mask[:, :skip], jnp.arange(keep) < own], axis=1),
        rank,
        rank < own,
        exists,
    )


class Places(NamedTuple):
    """For one modality's class token and patches, [B, T']: where the latent of each stands in the decoder's input
    (int32), whether it has one, and whether it exists at all (bool)."""

    index: jax.Array
    visible: jax.Array
    exists: jax.Array


def places(hidden: Hidden, skip: int, offset: int) -> Places:
    """The places of a sequence whose latents start at `offset` of the decoder's input."""
    keep = hidden.tokens.shape[1] - skip
    first = jnp.broadcast_to(offset + jnp.arange(skip), (hidden.rank.shape[0], skip))
    there = hidden.mask[:, :skip]
    return Places(
        jnp.concatenate([first, offset + skip + jnp.minimum(hidden.rank, keep - 1)], axis=1),
        jnp.concatenate([there, hidden.visible], axis=1),
        jnp.concatenate([there, hidden.exists], axis=1),
    )
