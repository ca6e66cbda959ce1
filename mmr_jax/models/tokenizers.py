"""One tokenizer per kind of modality: raw input (as the host sends it) to tokens [B, T, D] and a token mask [B, T].

A modality is a config entry; its `kind` names a class here. To add a kind, write one class and enter it in `KINDS`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmr_jax.errors import UserError, nearest
from mmr_jax.models import augment, frontend


def patchify(x: jax.Array, patch: tuple[int, ...]) -> jax.Array:
    """[B, n1, .., nk, C] -> [B, T, p1*..*pk*C]: non-overlapping patches, row-major, channel fastest."""
    grid = [n // p for n, p in zip(x.shape[1:-1], patch, strict=True)]
    k = len(patch)
    x = x.reshape(x.shape[0], *[v for pair in zip(grid, patch, strict=True) for v in pair], x.shape[-1])
    order = [0, *range(1, 2 * k, 2), *range(2, 2 * k + 1, 2), 2 * k + 1]
    return x.transpose(order).reshape(x.shape[0], math.prod(grid), -1)


def _grid(name: str, shape: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != len(patch) or any(n % p for n, p in zip(shape, patch, strict=True)):
        raise UserError(f"modality {name!r}: size {shape} is not divisible by patch_size {patch}; change one of them")
    return tuple(n // p for n, p in zip(shape, patch, strict=True))


class Tokenizer(nnx.Module):
    """Shared part: linear embedding of patches, positions, optional class token.

    Subclasses set `grid` (tokens per axis) and `patch_dim`, and define `prepare` (raw input to [B, T, patch_dim]) and
    `tokens_seen` (how many tokens `length` units of raw input cover);
    `spec` says what a raw example is: (shape, dtype, full length).
    """

    def __init__(self, name: str, cfg, width: int, class_token: bool, dtype: str, rngs: nnx.Rngs):
        self.name, self.cfg = name, cfg
        self.count = math.prod(self.grid)
        self.embed = self.embedding(width, jnp.dtype(dtype), rngs)
        normal = nnx.initializers.normal(0.02)
        self.position = nnx.Param(normal(rngs.params(), (self.count + class_token, width), jnp.float32))
        self.class_token = nnx.Param(jnp.zeros((1, width))) if class_token else None
        self.dtype = dtype

    def embedding(self, width: int, dtype, rngs: nnx.Rngs) -> nnx.Module:
        return nnx.Linear(self.patch_dim, width, dtype=dtype, kernel_init=nnx.initializers.xavier_uniform(), rngs=rngs)

    def __call__(self, raw: jax.Array, length: jax.Array, rng: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """raw [B, ...], length int32 [B] (valid units, 0 = absent) -> tokens [B, T, D], mask bool [B, T].

        `rng` (training only) switches the configured augmentation on. What `raw` holds past `length` never matters.
        """
        valid = self.valid(raw, length).reshape(raw.shape[0], -1, *[1] * (raw.ndim - 2))
        x = self.embed(self.prepare(jnp.where(valid, raw, 0), rng))
        mask = jnp.arange(self.count) < self.tokens_seen(length)[:, None]
        if self.class_token is not None:
            token = jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, x.shape[-1])).astype(x.dtype)
            x = jnp.concatenate([token, x], axis=1)
            mask = jnp.concatenate([(length > 0)[:, None], mask], axis=1)
        return x + self.position[...].astype(x.dtype), mask

    def valid(self, raw: jax.Array, length: jax.Array) -> jax.Array:
        """Bool [B, n] over the first axis of a raw example (or [B, 1]): what lies within `length`."""
        return jnp.arange(raw.shape[1]) < length[:, None]


class Spectrogram(Tokenizer):
    """int16 PCM [B, samples] -> log-mel -> patches of (time, mel); tokens are time-major.

    `frames` is the padded number of spectrogram frames; patches past the clip's own length are masked.
    """

    @staticmethod
    def spec(cfg):
        return (cfg.samples,), np.dtype(np.int16), cfg.samples

    def __init__(self, name, cfg, width, class_token, dtype, rngs):
        self.grid = _grid(name, (cfg.frames, cfg.mels), tuple(cfg.patch_size))
        self.patch_dim = math.prod(cfg.patch_size)
        super().__init__(name, cfg, width, class_token, dtype, rngs)

    def spectrogram(self, raw: jax.Array) -> jax.Array:
        """Normalised log-mel float32 [B, frames, mels]; frames beyond the recording are zero after normalising."""
        cfg = self.cfg
        mel = frontend.log_mel(
            raw,
            sample_rate=cfg.sample_rate,
            num_mels=cfg.mels,
            window_ms=cfg.window_ms,
            hop_ms=cfg.hop_ms,
            window=cfg.window,
        )
        mel = (mel[:, : cfg.frames] - cfg.mean) / cfg.std
        return jnp.pad(mel, ((0, 0), (0, cfg.frames - mel.shape[1]), (0, 0)))

    def prepare(self, raw, rng):
        mel = self.spectrogram(raw)
        if rng is not None and self.cfg.get("augment"):
            mel = augment.spectrogram(mel, rng, **self.cfg.augment)
        return patchify(mel[..., None], tuple(self.cfg.patch_size))

    def tokens_seen(self, length):
        """Patches are time-major, so a clip's valid patches come first; a touched patch counts."""
        cfg = self.cfg
        hop = round(cfg.sample_rate * cfg.hop_ms / 1000)
        columns = -(-length // (hop * cfg.patch_size[0]))
        return jnp.clip(columns, 0, self.grid[0]) * self.grid[1]


class Image(Tokenizer):
    """uint8 [B, H, W, C] -> patches."""

    @staticmethod
    def spec(cfg):
        return (cfg.height, cfg.width, cfg.channels), np.dtype(np.uint8), 1

    def __init__(self, name, cfg, width, class_token, dtype, rngs):
        self.grid = _grid(name, (cfg.height, cfg.width), tuple(cfg.patch_size))
        self.patch_dim = math.prod(cfg.patch_size) * cfg.channels
        super().__init__(name, cfg, width, class_token, dtype, rngs)

    def prepare(self, raw, rng):
        x = frontend.scale_pixels(raw, self.cfg.mean, self.cfg.std)
        if rng is not None and self.cfg.get("augment"):
            x = augment.image(x, rng, **self.cfg.augment)
        return patchify(x, tuple(self.cfg.patch_size))

    def valid(self, raw, length):
        return (length > 0)[:, None]

    def tokens_seen(self, length):
        return jnp.where(length > 0, self.count, 0)


class Video(Tokenizer):
    """uint8 [B, F, H, W, C] -> tubelets (frames, rows, columns); frames past `length` are masked."""

    @staticmethod
    def spec(cfg):
        return (cfg.frames, cfg.height, cfg.width, cfg.channels), np.dtype(np.uint8), cfg.frames

    def __init__(self, name, cfg, width, class_token, dtype, rngs):
        self.grid = _grid(name, (cfg.frames, cfg.height, cfg.width), tuple(cfg.patch_size))
        self.patch_dim = math.prod(cfg.patch_size) * cfg.channels
        super().__init__(name, cfg, width, class_token, dtype, rngs)

    def prepare(self, raw, rng):
        return patchify(frontend.scale_pixels(raw, self.cfg.mean, self.cfg.std), tuple(self.cfg.patch_size))

    def tokens_seen(self, length):
        return jnp.clip(-(-length // self.cfg.patch_size[0]), 0, self.grid[0]) * (self.grid[1] * self.grid[2])


class Text(Tokenizer):
    """int32 token ids [B, length], padded with 0 -> embeddings; padding is masked."""

    @staticmethod
    def spec(cfg):
        return (cfg.length,), np.dtype(np.int32), cfg.length

    def __init__(self, name, cfg, width, class_token, dtype, rngs):
        self.grid = (cfg.length,)
        super().__init__(name, cfg, width, class_token, dtype, rngs)

    def embedding(self, width, dtype, rngs):
        init = nnx.initializers.normal(0.02)
        return nnx.Embed(self.cfg.vocab_size, width, dtype=dtype, embedding_init=init, rngs=rngs)

    def prepare(self, raw, rng):
        return raw

    def tokens_seen(self, length):
        return length


class Features(Tokenizer):
    """float32 [B, length, dim] feature sequences (anything measured per time step) -> linear embedding."""

    @staticmethod
    def spec(cfg):
        return (cfg.length, cfg.dim), np.dtype(np.float32), cfg.length

    def __init__(self, name, cfg, width, class_token, dtype, rngs):
        self.grid, self.patch_dim = (cfg.length,), cfg.dim
        super().__init__(name, cfg, width, class_token, dtype, rngs)

    def prepare(self, raw, rng):
        return raw

    def tokens_seen(self, length):
        return length


KINDS = {"spectrogram": Spectrogram, "image": Image, "video": Video, "text": Text, "features": Features}


def make_tokenizer(name: str, cfg, width: int, class_token: bool, dtype: str, rngs: nnx.Rngs) -> Tokenizer:
    """The tokenizer of modality `name` by its config's `kind`."""
    if cfg.kind not in KINDS:
        raise UserError(f"modality {name!r}: unknown kind {cfg.kind!r}{nearest(cfg.kind, KINDS)}")
    return KINDS[cfg.kind](name, cfg, width, class_token, dtype, rngs)


def input_spec(cfg) -> tuple[tuple[int, ...], np.dtype, int]:
    """(shape without batch, dtype, full length) of one raw example of a modality, from its config alone."""
    return KINDS[cfg.kind].spec(cfg)
