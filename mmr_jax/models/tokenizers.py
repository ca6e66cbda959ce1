"""One tokenizer per kind of modality: raw input (as the host sends it) to tokens [B, T, D] and a token mask [B, T].

A modality is a config entry; its `kind` names a class here. To add a kind, write one class and enter it in `KINDS`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmr_jax.errors import UserError, nearest
from mmr_jax.models import augment, crop, frontend
from mmr_jax.models.blocks import layer_norm
from mmr_jax.models.patches import patch_grid, patchify, sincos


class Tokenizer(nnx.Module):
    """Shared part: linear embedding of patches, positions, optional class token, modality token and norm.

    Subclasses set `grid` (tokens per axis), `axes` (the grid's axes in the order of a sin-cos table) and `patch_dim`,
    and define `prepare` (raw input to [B, T, patch_dim]) and `tokens_seen` (how many tokens `length` units of raw input
    cover); `spec` says what a raw example is: (shape, dtype, full length). `tower` is a TowerConfig.
    """

    axes: tuple[int, ...] = (0,)

    def __init__(self, name: str, cfg, tower, rngs: nnx.Rngs):
        self.name, self.cfg, self.tower = name, cfg, tower
        self.count = math.prod(self.grid)
        width, normal = tower.block.width, nnx.initializers.normal(0.02)
        self.embed = self.make_embedding(width, jnp.dtype(tower.block.dtype), rngs)
        self.position = nnx.Param(position_table(self, rngs))
        self.class_token = nnx.Param(jnp.zeros((1, width))) if tower.class_token else None
        self.modality_token = nnx.Param(normal(rngs.params(), (1, width))) if tower.modality_token else None
        self.pre_norm = layer_norm(tower.block, rngs) if tower.pre_norm else None

    def make_embedding(self, width: int, dtype, rngs: nnx.Rngs) -> nnx.Module:
        bias, init = self.tower.patch_bias, nnx.initializers.xavier_uniform()
        return nnx.Linear(self.patch_dim, width, use_bias=bias, dtype=dtype, kernel_init=init, rngs=rngs)

    def patches(self, raw: jax.Array, length: jax.Array, rng: jax.Array | None) -> jax.Array:
        """raw [B, ...], length int32 [B] (valid units, 0 = absent) -> patches float32 [B, T, patch_dim], or ids [B, T].

        `rng` (training only) switches the configured augmentation on. What `raw` holds past `length` never matters.
        """
        valid = self.valid(raw, length).reshape(raw.shape[0], -1, *[1] * (raw.ndim - 2))
        return self.prepare(jnp.where(valid, raw, 0), length, rng)

    def __call__(self, patches: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Patches of `patches` -> tokens [B, class_token + T, D], mask bool [B, class_token + T]."""
        x = self.embed(patches)
        mask = jnp.arange(self.count) < self.tokens_seen(length)[:, None]
        if self.class_token is not None:
            token = jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, x.shape[-1])).astype(x.dtype)
            x = jnp.concatenate([token, x], axis=1)
            mask = jnp.concatenate([(length > 0)[:, None], mask], axis=1)
        added = self.position[...] if self.modality_token is None else self.position[...] + self.modality_token[...]
        x = x + added.astype(x.dtype)
        return (x if self.pre_norm is None else self.pre_norm(x)), mask

    def valid(self, raw: jax.Array, length: jax.Array) -> jax.Array:
        """Bool [B, n] over the first axis of a raw example (or [B, 1]): what lies within `length`."""
        return jnp.arange(raw.shape[1]) < length[:, None]


def position_table(tokenizer: Tokenizer, rngs: nnx.Rngs) -> jax.Array:
    """The initial positions float32 [class_token + T, D]; in a sin-cos table the class token's row is zero."""
    tower, first = tokenizer.tower, int(tokenizer.tower.class_token)
    if tower.positions == "learned":
        return nnx.initializers.normal(0.02)(rngs.params(), (tokenizer.count + first, tower.block.width), jnp.float32)
    return jnp.pad(sincos(tokenizer.grid, tokenizer.axes, tower.block.width), ((first, 0), (0, 0)))


class Spectrogram(Tokenizer):
    """int16 PCM (or float in [-1, 1)) [B, samples] -> log-mel -> patches of (time, mel); tokens are time-major.

    `frames` is the padded number of spectrogram frames; patches past the clip's own length are masked.
    """

    axes = (0, 1)

    @staticmethod
    def spec(cfg):
        return (cfg.samples,), np.dtype(np.int16), cfg.samples

    def __init__(self, name, cfg, tower, rngs):
        self.grid = patch_grid(name, (cfg.frames, cfg.mels), tuple(cfg.patch_size))
        self.patch_dim = math.prod(cfg.patch_size)
        super().__init__(name, cfg, tower, rngs)

    def spectrogram(self, raw: jax.Array, length: jax.Array) -> jax.Array:
        """Normalised log-mel float32 [B, frames, mels]; frames beyond the array are `fill` (0 is the mean).

        With `padding="input"` so are all frames past the clip itself (CAV-MAE; its fill is -mean / std).
        """
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
        mel = jnp.pad(mel, ((0, 0), (0, cfg.frames - mel.shape[1]), (0, 0)), constant_values=cfg.fill)
        if cfg.padding == "masked":
            return mel
        return jnp.where((jnp.arange(cfg.frames) < self.own_frames(length)[:, None])[..., None], mel, cfg.fill)

    def own_frames(self, length: jax.Array) -> jax.Array:
        """Whole frames within a clip of `length` samples, int32 [B]."""
        cfg = self.cfg
        size, hop = (round(cfg.sample_rate * ms / 1000) for ms in (cfg.window_ms, cfg.hop_ms))
        return jnp.clip((length - size) // hop + 1, 0, cfg.frames)

    def prepare(self, raw, length, rng):
        cfg, mel = self.cfg, self.spectrogram(raw, length)
        if rng is not None and cfg.get("augment"):
            valid = self.own_frames(length) if cfg.padding == "masked" else None
            mel = augment.spectrogram(mel, rng, valid, fill=cfg.fill, **cfg.augment)
        # As an array of its own: sums over a patch that are fused into its cutting are slow on TPUs.
        return jax.lax.optimization_barrier(patchify(mel[..., None], tuple(cfg.patch_size)))

    def tokens_seen(self, length):
        """Patches are time-major, so a clip's valid patches come first; a touched patch counts."""
        cfg = self.cfg
        if cfg.padding == "input":
            return jnp.where(length > 0, self.count, 0)
        hop = round(cfg.sample_rate * cfg.hop_ms / 1000)
        columns = -(-length // (hop * cfg.patch_size[0]))
        return jnp.clip(columns, 0, self.grid[0]) * self.grid[1]


class Image(Tokenizer):
    """uint8 [B, H, W, C] -> patches; what the host sends may be larger than what the model sees (`stored`).

    With `frames` n an example is [B, n, H, W, C]: training draws one frame, without `rng` it is the middle one.
    """

    axes = (1, 0)

    @staticmethod
    def spec(cfg):
        frames = (cfg.frames,) if cfg.get("frames") else ()
        return (*frames, *crop.sent_size(cfg), cfg.channels), np.dtype(np.uint8), 1

    def __init__(self, name, cfg, tower, rngs):
        crop.check(name, cfg)
        self.grid = patch_grid(name, (cfg.height, cfg.width), tuple(cfg.patch_size))
        self.patch_dim = math.prod(cfg.patch_size) * cfg.channels
        super().__init__(name, cfg, tower, rngs)

    def patches(self, raw, length, rng):
        if raw.ndim == 5:  # first of all: what follows then reads one frame, not all of them
            raw = _one_frame(raw, None if rng is None else jax.random.fold_in(rng, 1))
        return super().patches(raw, length, rng)

    def prepare(self, raw, length, rng):
        x = _seen(self, raw, rng)
        changes = {k: v for k, v in (self.cfg.get("augment") or {}).items() if k not in crop.FIELDS}
        if rng is not None and changes:
            x = augment.image(x, rng, **changes)
        return patchify(x, tuple(self.cfg.patch_size))

    def valid(self, raw, length):
        return (length > 0)[:, None]

    def tokens_seen(self, length):
        return jnp.where(length > 0, self.count, 0)


def _one_frame(raw: jax.Array, rng: jax.Array | None) -> jax.Array:
    """[B, n, H, W, C] -> [B, H, W, C]: a random frame of each example, or the middle one."""
    if rng is None:
        return raw[:, raw.shape[1] // 2]
    return raw[jnp.arange(raw.shape[0]), jax.random.randint(rng, (raw.shape[0],), 0, raw.shape[1])]


def _seen(tokenizer: Tokenizer, raw: jax.Array, rng: jax.Array | None) -> jax.Array:
    """Frames [B, ..., H, W, C] as sent -> what the model sees of them, scaled float32 [B, ..., height, width, C].

    Frames of another size than the config says are a UserError.
    """
    cfg, sent = tokenizer.cfg, crop.sent_size(tokenizer.cfg)
    if raw.shape[-3:-1] != sent:
        raise UserError(
            f"modality {tokenizer.name!r}: frames are {raw.shape[-3]} x {raw.shape[-2]}, the config says {sent[0]} x "
            f"{sent[1]} (stored, or height and width); change it, or prepare frames of that size"
        )
    changes = {k: v for k, v in (cfg.get("augment") or {}).items() if k in crop.FIELDS}
    key = None if rng is None else jax.random.fold_in(rng, 2)
    return frontend.scale_pixels(crop.view(raw, (cfg.height, cfg.width), key, **changes), cfg.mean, cfg.std)


class Video(Tokenizer):
    """uint8 [B, F, H, W, C] -> tubelets (frames, rows, columns); frames past `length` are masked.

    What the host sends may be larger than what the model sees (`stored`); all frames of a clip are cut alike.
    """

    axes = (2, 1, 0)

    @staticmethod
    def spec(cfg):
        return (cfg.frames, *crop.sent_size(cfg), cfg.channels), np.dtype(np.uint8), cfg.frames

    def __init__(self, name, cfg, tower, rngs):
        crop.check(name, cfg)
        self.grid = patch_grid(name, (cfg.frames, cfg.height, cfg.width), tuple(cfg.patch_size))
        self.patch_dim = math.prod(cfg.patch_size) * cfg.channels
        super().__init__(name, cfg, tower, rngs)

    def prepare(self, raw, length, rng):
        return patchify(_seen(self, raw, rng), tuple(self.cfg.patch_size))

    def tokens_seen(self, length):
        return jnp.clip(-(-length // self.cfg.patch_size[0]), 0, self.grid[0]) * (self.grid[1] * self.grid[2])


class Text(Tokenizer):
    """int32 token ids [B, length], padded with 0 -> embeddings; padding is masked."""

    @staticmethod
    def spec(cfg):
        return (cfg.length,), np.dtype(np.int32), cfg.length

    def __init__(self, name, cfg, tower, rngs):
        self.grid = (cfg.length,)
        super().__init__(name, cfg, tower, rngs)

    def make_embedding(self, width, dtype, rngs):
        init = nnx.initializers.normal(0.02)
        return nnx.Embed(self.cfg.vocab_size, width, dtype=dtype, embedding_init=init, rngs=rngs)

    def prepare(self, raw, length, rng):
        return raw

    def tokens_seen(self, length):
        return length


class Features(Tokenizer):
    """float32 [B, length, dim] feature sequences (anything measured per time step) -> linear embedding."""

    @staticmethod
    def spec(cfg):
        return (cfg.length, cfg.dim), np.dtype(np.float32), cfg.length

    def __init__(self, name, cfg, tower, rngs):
        self.grid, self.patch_dim = (cfg.length,), cfg.dim
        super().__init__(name, cfg, tower, rngs)

    def prepare(self, raw, length, rng):
        return raw

    def tokens_seen(self, length):
        return length


KINDS = {"spectrogram": Spectrogram, "image": Image, "video": Video, "text": Text, "features": Features}


def make_tokenizer(name: str, cfg, tower, rngs: nnx.Rngs) -> Tokenizer:
    """The tokenizer of modality `name` by its config's `kind`, for a tower (TowerConfig)."""
    if cfg.kind not in KINDS:
        raise UserError(f"modality {name!r}: unknown kind {cfg.kind!r}{nearest(cfg.kind, KINDS)}")
    return KINDS[cfg.kind](name, cfg, tower, rngs)


def input_spec(cfg) -> tuple[tuple[int, ...], np.dtype, int]:
    """(shape without batch, dtype, full length) of one raw example of a modality, from its config alone."""
    return KINDS[cfg.kind].spec(cfg)
