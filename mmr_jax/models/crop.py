"""What the model sees of a frame that was sent: a crop, enlarged and mirrored if asked, inside the compiled step.

Frames are [B, ..., H, W, C], uint8 or float; all frames of an example are cut alike. Pure in `rng`. Without zoom uint8
stays uint8, a quarter of the memory traffic until the pixels are scaled.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmr_jax.errors import UserError

Size = tuple[int, int]
FIELDS = ("flip", "zoom")  # of the block `augment` of a modality


class Window(NamedTuple):
    """A window per example, all [B], in pixels of the sent frame: its corner and by how much it is enlarged.

    Corners are whole (int32) where nothing is enlarged (`factor` is None), else float32.
    """

    top: jax.Array
    left: jax.Array
    factor: jax.Array | None = None


def sent_size(cfg: Mapping) -> Size:
    """(height, width) in which the host sends the frames of a modality of kind image or video."""
    stored = cfg.get("stored", 0)
    return (stored, stored) if stored else (cfg["height"], cfg["width"])


def check(name: str, cfg: Mapping) -> None:
    """UserError unless the fields `stored`, `augment.flip` and `augment.zoom` of modality `name` make sense."""
    stored, height, width = cfg.get("stored", 0), cfg["height"], cfg["width"]
    if not isinstance(stored, int) or isinstance(stored, bool) or stored < 0:
        raise UserError(f"modality {name!r}: stored is {stored!r}; a whole number of pixels is needed, 0: none to crop")
    if stored and height != width:
        raise UserError(f"modality {name!r}: stored={stored} frames are square, {height} x {width} is not; change it")
    if stored and stored < height:
        raise UserError(f"modality {name!r}: stored={stored} is less than height={height}; store more or see less")
    changes = cfg.get("augment") or {}
    flip, zoom = changes.get("flip", 0.0), changes.get("zoom", 1.0)
    if not _is_number(flip) or not 0 <= flip <= 1:
        raise UserError(f"modality {name!r}: augment.flip is {flip!r}; a probability from 0 to 1 is needed")
    if not _is_number(zoom) or not 1 <= zoom < float("inf"):
        raise UserError(f"modality {name!r}: augment.zoom is {zoom!r}; a number of at least 1 is needed, 1: no zoom")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def view(frames: jax.Array, size: Size, rng: jax.Array | None, *, flip: float = 0.0, zoom: float = 1.0) -> jax.Array:
    """Frames [B, ..., H, W, C] -> [B, ..., *size, C]: the centre, or with `rng` a random window.

    `flip` is the probability that an example is mirrored left to right; for `zoom` see `draw`. The result is float32
    where zoom > 1 and has the dtype of the frames elsewhere.
    """
    if rng is None:
        return centre(frames, size)
    window_key, flip_key = jax.random.split(rng)
    sent, batch = frames.shape[-3:-1], frames.shape[0]
    if zoom > 1 or sent != size:
        frames = cut(frames, draw(window_key, batch, sent, size, zoom), size)
    return mirror(frames, jax.random.bernoulli(flip_key, flip, (batch,))) if flip else frames


def centre(frames: jax.Array, size: Size) -> jax.Array:
    """The middle of every frame; of an odd margin the smaller half is above and to the left."""
    top, left = ((n - m) // 2 for n, m in zip(frames.shape[-3:-1], size, strict=True))
    return frames[..., top : top + size[0], left : left + size[1], :]


def draw(rng: jax.Array, batch: int, sent: Size, size: Size, zoom: float = 1.0) -> Window:
    """Random windows in frames of size `sent`, for a model that sees `size`.

    With zoom 1 the window has the model's size. With zoom z > 1 it has size / f, f ~ U[1, z], and is enlarged by f: the
    same as enlarging the frame by f and cutting out the model's size anywhere. A short side drawn from [256, 320] and a
    random crop of 224 (McKinzie et al.) are frames stored at 256, zoom 1.25 and height 224.
    """
    top_key, left_key, factor_key = jax.random.split(rng, 3)
    if zoom == 1:
        corner = [
            jax.random.randint(key, (batch,), 0, n - m + 1)
            for key, n, m in zip((top_key, left_key), sent, size, strict=True)
        ]
        return Window(*corner)
    factor = jax.random.uniform(factor_key, (batch,), minval=1.0, maxval=zoom)
    corner = [
        jax.random.uniform(key, (batch,)) * (n - m / factor)
        for key, n, m in zip((top_key, left_key), sent, size, strict=True)
    ]
    return Window(*corner, factor)


def cut(frames: jax.Array, window: Window, size: Size) -> jax.Array:
    """The windows [B] of frames [B, ..., H, W, C] as [B, ..., *size, C]: exact, or bilinear where there is a factor.

    Bilinear as in resizing the whole frame: pixels beside the window count, the frame's edge repeats. Windows are only
    ever enlarged, where antialiasing changes nothing.
    """
    if window.factor is not None:
        return _weighted(frames.astype(jnp.float32), window, size)
    # For slices at places known at run time only a TPU rearranges all frames first: crop and patches of 32 clips take
    # 82 million cycles instead of 9 (the compiler's estimate for a v5e, 8 frames of 256, seen at 224).
    choices = dict(tpu=functools.partial(by_products, size=size), default=functools.partial(by_slices, size=size))
    return jax.lax.platform_dependent(frames, window.top, window.left, **choices)


def by_slices(frames: jax.Array, top: jax.Array, left: jax.Array, size: Size) -> jax.Array:
    """Windows at whole pixels, as slices."""
    lead = frames.shape[1:-3]

    def one(x, top, left):
        return jax.lax.dynamic_slice(x, (*[0] * len(lead), top, left, 0), (*lead, *size, x.shape[-1]))

    return jax.vmap(one)(frames, top, left)


def by_products(frames: jax.Array, top: jax.Array, left: jax.Array, size: Size) -> jax.Array:
    """The same numbers as `by_slices`, as two products with matrices of 0 and 1."""
    window = Window(top, left, jnp.ones(top.shape))
    whole = frames.dtype == jnp.uint8  # 0..255 are exact in bfloat16
    return _weighted(frames.astype(jnp.bfloat16 if whole else jnp.float32), window, size).astype(frames.dtype)


def _weighted(frames: jax.Array, window: Window, size: Size) -> jax.Array:
    """Two products with interpolation matrices, in the dtype of the frames; float32 at full precision: in one bfloat16
    pass a pixel would be off by up to half a level."""
    rows = _interpolation(window.top, window.factor, frames.shape[-3], size[0]).astype(frames.dtype)
    columns = _interpolation(window.left, window.factor, frames.shape[-2], size[1]).astype(frames.dtype)
    exact = jax.lax.Precision.HIGHEST if frames.dtype == jnp.float32 else None
    x = jnp.einsum("bih,b...hwc->b...iwc", rows, frames, precision=exact)
    return jnp.einsum("bjw,b...iwc->b...ijc", columns, x, precision=exact)


def _interpolation(start: jax.Array, factor: jax.Array, sent: int, size: int) -> jax.Array:
    """Weights float32 [B, size, sent] of `sent` pixels for `size` places, the first of which begins at `start`."""
    place = start[:, None] + (jnp.arange(size) + 0.5) / factor[:, None] - 0.5
    place = jnp.clip(place, 0, sent - 1)
    return jnp.maximum(0.0, 1.0 - jnp.abs(place[..., None] - jnp.arange(sent)))


def mirror(frames: jax.Array, flipped: jax.Array) -> jax.Array:
    """Frames [B, ..., H, W, C] with left and right exchanged where `flipped`, bool [B]."""
    return jnp.where(flipped.reshape(-1, *[1] * (frames.ndim - 1)), frames[..., ::-1, :], frames)
