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


def _band(rng: jax.Array, size: int, valid: jax.Array, widest: int) -> jax.Array:
    """Boolean [B, size]: one band within the first `valid` places of each example, int32 [B].

    Width is U(0, widest) and start U(0, valid - width), both rounded down (as torchaudio does it, so a band has at most
    widest - 1 places).
    """
    width_key, start_key = jax.random.split(rng)
    valid = valid[:, None]
    width = jnp.minimum(jax.random.uniform(width_key, valid.shape) * widest, valid)
    start = jnp.floor(jax.random.uniform(start_key, valid.shape) * (valid - width))
    place = jnp.arange(size)
    return (place >= start) & (place < start + jnp.floor(width))


def _roll(x: jax.Array, shift: jax.Array, valid: jax.Array) -> jax.Array:
    """The first `valid` frames of x [B, frames, mels] moved circularly by `shift`; the others stay."""
    place, valid = jnp.arange(x.shape[1]), valid[:, None]
    source = jnp.where(place < valid, (place - shift[:, None]) % jnp.maximum(valid, 1), place)
    return jnp.take_along_axis(x, source[..., None], axis=1)


def spectrogram(
    x: jax.Array,
    rng: jax.Array,
    valid: jax.Array | None = None,
    *,
    time_mask: int = 0,
    mel_mask: int = 0,
    roll: int = 0,
    noise: float = 0.0,
    uniform_noise: float = 0.0,
    fill: float = 0.0,
) -> jax.Array:
    """SpecAugment without time warping (arXiv 1904.08779), noise and a roll on normalised float32 [B, frames, mels].

    One time band of less than `time_mask` frames and one mel band of less than `mel_mask` bins become `fill`. `noise`
    is the deviation of Gaussian noise. `uniform_noise` adds that much times U[0, 1) per cell times U[0, 1) per example
    (CAV-MAE: 0.1). `roll` moves the clip by up to that many frames, circularly. Bands in time and the roll stay within
    the first `valid` frames, int32 [B] (default: all), so that nothing of a short clip leaves its token mask.
    """
    if not (time_mask or mel_mask or roll or noise or uniform_noise):
        return x
    time_key, mel_key, roll_key, noise_key = jax.random.split(rng, 4)
    batch, frames, mels = x.shape
    valid = jnp.full(batch, frames) if valid is None else valid
    in_time = _band(time_key, frames, valid, time_mask)
    in_mel = _band(mel_key, mels, jnp.full(batch, mels), mel_mask)
    x = jnp.where(in_time[:, :, None] | in_mel[:, None, :], fill, x)
    if noise:
        x = x + noise * jax.random.normal(noise_key, x.shape)
    if uniform_noise:
        cell_key, level_key = jax.random.split(jax.random.fold_in(noise_key, 1))
        level = uniform_noise * jax.random.uniform(level_key, (batch, 1, 1))
        x = x + level * jax.random.uniform(cell_key, x.shape)
    if roll:
        x = _roll(x, jax.random.randint(roll_key, (batch,), -roll, roll + 1), valid)
    return x
