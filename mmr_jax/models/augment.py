"""Augmentation on the device, in the compiled step, one draw per example. All functions are pure in `rng`."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


def image(x: jax.Array, rng: jax.Array, *, shift: float = 0.0, rotate: float = 0.0, scale: float = 0.0) -> jax.Array:
    """Random affine change of images float32 [B, H, W, C]: shift in pixels, rotate in degrees, scale as a share.

    Each of the three is the half-width of a uniform distribution around no change. Pixels from outside repeat the
    nearest edge.
    """
    if not (shift or rotate or scale):
        return x
    batch, height, width, _ = x.shape
    draws = jax.random.uniform(rng, (batch, 4), minval=-1.0, maxval=1.0)
    angle = jnp.deg2rad(rotate) * draws[:, 0]
    zoom = 1.0 + scale * draws[:, 1]
    rows, cols = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")

    def warp(img, angle, zoom, move):
        r = (jnp.cos(angle) * rows - jnp.sin(angle) * cols) * zoom + move[0] + (height - 1) / 2
        c = (jnp.sin(angle) * rows + jnp.cos(angle) * cols) * zoom + move[1] + (width - 1) / 2
        return jax.vmap(lambda ch: map_coordinates(ch, [r, c], order=1, mode="nearest"), -1, -1)(img)

    return jax.vmap(warp)(x, angle, zoom, shift * draws[:, 2:])


def _band(rng: jax.Array, batch: int, size: int, widest: int) -> jax.Array:
    """Boolean [B, size]: one band of random width in 0..widest at a random place, per example."""
    width_key, start_key = jax.random.split(rng)
    width = jax.random.randint(width_key, (batch, 1), 0, widest + 1)
    start = (jax.random.uniform(start_key, (batch, 1)) * (size - width + 1)).astype(jnp.int32)
    place = jnp.arange(size)
    return (place >= start) & (place < start + width)


def spectrogram(
    x: jax.Array, rng: jax.Array, *, time_mask: int = 0, mel_mask: int = 0, roll: int = 0, noise: float = 0.0
) -> jax.Array:
    """SpecAugment on normalised spectrograms float32 [B, frames, mels] (arXiv 1904.08779, without time warping).

    One time band of at most `time_mask` frames and one mel band of at most `mel_mask` bins are set to the mean (0);
    `roll` moves the clip by up to that many frames, circularly; `noise` is the deviation of added Gaussian noise.
    """
    if not (time_mask or mel_mask or roll or noise):
        return x
    time_key, mel_key, roll_key, noise_key = jax.random.split(rng, 4)
    batch, frames, mels = x.shape
    if noise:
        x = x + noise * jax.random.normal(noise_key, x.shape)
    if roll:
        x = jax.vmap(lambda a, n: jnp.roll(a, n, axis=0))(x, jax.random.randint(roll_key, (batch,), -roll, roll + 1))
    hidden = _band(time_key, batch, frames, time_mask)[:, :, None] | _band(mel_key, batch, mels, mel_mask)[:, None, :]
    return jnp.where(hidden, 0.0, x)
