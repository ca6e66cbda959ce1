"""The multimodal encoder: a tokenizer and `adapter_depth` owned blocks per modality, then shared blocks.

adapter_depth = depth gives separate encoders (VATT, CLIP), depth - 1 the AV-MAE / CAV-MAE shape, 0 one trunk for all
(PolyViT). The shared blocks run one stream per modality or one joint stream over the concatenated tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmr_jax.errors import UserError, nearest
from mmr_jax.models.blocks import ACTIVATIONS, BlockConfig, Stack, layer_norm
from mmr_jax.models.tokenizers import make_tokenizer

SIZES = {
    "Ti": (192, 12, 3, 768),
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
}
JOINT, ALL = "joint", "all"
# Values of the fields of a tower that have few.
CHOICES = {"activation": tuple(ACTIVATIONS), "pool": ("mean", "cls"), "dtype": ("float32", "bfloat16", "float16")}


class Encoded(NamedTuple):
    """What an encoder returns for a stream: tokens [B, T, D], mask bool [B, T], pooled [B, D]."""

    tokens: jax.Array
    mask: jax.Array
    pooled: jax.Array


@dataclass(frozen=True)
class TowerConfig:
    """One modality's part of the encoder (all towers are alike where blocks are shared)."""

    block: BlockConfig
    depth: int
    class_token: bool = False
    pool: str = "mean"


# What `model.overrides` may change for one modality.
TOWER = {"size", *(f.name for c in (BlockConfig, TowerConfig) for f in fields(c))} - {"block"}


@dataclass(frozen=True)
class EncoderConfig:
    """The whole encoder. `towers` holds the towers that differ from `tower`."""

    tower: TowerConfig
    adapter_depth: int
    stream_norms: str = "own"
    joint: bool = False
    scan: bool = True
    towers: Mapping[str, TowerConfig] = field(default_factory=dict)

    def for_modality(self, name: str) -> TowerConfig:
        """The tower of modality `name`."""
        return self.towers.get(name, self.tower)


def _tower(cfg) -> TowerConfig:
    if cfg.size:
        if cfg.size not in SIZES:
            raise UserError(f"model.size: unknown size {cfg.size!r}{nearest(cfg.size, SIZES)}")
        width, depth, heads, mlp_dim = SIZES[cfg.size]
    else:
        width, depth, heads, mlp_dim = cfg.width, cfg.depth, cfg.heads, cfg.mlp_dim
    if width % heads:
        raise UserError(f"model: width {width} is not divisible by heads {heads}")
    for key, allowed in CHOICES.items():
        if cfg[key] not in allowed:
            raise UserError(f"model.{key} is {cfg[key]!r}{nearest(str(cfg[key]), allowed)}; choose from {allowed}")
    if cfg.pool == "cls" and not cfg.class_token:
        raise UserError("model.pool='cls' needs model.class_token=True")
    block = BlockConfig(width, heads, mlp_dim, cfg.activation, cfg.norm_eps, cfg.causal, cfg.dtype)
    return TowerConfig(block, depth, cfg.class_token, cfg.pool)


def encoder_config(cfg, modalities: Sequence[str]) -> EncoderConfig:
    """From the `model` block of a config. Overrides per modality are allowed only where no block is shared."""
    tower = _tower(cfg)
    adapter_depth = tower.depth if cfg.adapter_depth < 0 else cfg.adapter_depth
    if adapter_depth > tower.depth:
        raise UserError(f"model.adapter_depth {adapter_depth} is larger than the depth {tower.depth}")
    joint = cfg.fusion == JOINT
    if joint and adapter_depth == tower.depth:
        raise UserError("model.fusion='joint' needs shared blocks: set model.adapter_depth below the depth")
    unknown = [m for m in cfg.overrides if m not in modalities]
    if unknown:
        raise UserError(f"model.overrides: unknown modality {unknown[0]!r}{nearest(unknown[0], modalities)}")
    if cfg.overrides and adapter_depth < tower.depth:
        raise UserError("model.overrides needs separate encoders: set model.adapter_depth to the depth (or -1)")
    towers = {}
    for name, changes in cfg.overrides.items():
        for key in changes:
            if key not in TOWER:
                raise UserError(f"model.overrides.{name} has no field {key!r}{nearest(key, TOWER)}")
        merged = type(cfg)({**cfg, "size": "", **_numbers(tower), **changes})
        towers[name] = _tower(merged)
    return EncoderConfig(tower, adapter_depth, cfg.stream_norms, joint, cfg.scan_layers, towers)


def _numbers(tower: TowerConfig) -> dict:
    block = tower.block
    return {"width": block.width, "depth": tower.depth, "heads": block.heads, "mlp_dim": block.mlp_dim}


def pool(tokens: jax.Array, mask: jax.Array, tower: TowerConfig) -> jax.Array:
    """[B, T, D] -> float32 [B, D]: masked mean over the patch tokens, or the class token; zeros when all is masked."""
    if tower.pool == "cls":
        return jnp.where(mask[:, :1], tokens[:, 0].astype(jnp.float32), 0.0)
    skip = int(tower.class_token)
    tokens, mask = tokens[:, skip:].astype(jnp.float32), mask[:, skip:, None]
    return jnp.sum(jnp.where(mask, tokens, 0.0), axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)


class MultimodalEncoder(nnx.Module):
    """Encoder over any number of modalities; see the module's docstring for the shapes it covers."""

    def __init__(self, cfg: EncoderConfig, modalities: Mapping[str, object], rngs: nnx.Rngs):
        self.cfg = cfg
        names = list(modalities)
        towers = {m: cfg.for_modality(m) for m in names}
        self.tokenizers = nnx.Dict(
            {
                m: make_tokenizer(m, modalities[m], t.block.width, t.class_token, t.block.dtype, rngs)
                for m, t in towers.items()
            }
        )
        shared_depth = cfg.tower.depth - cfg.adapter_depth
        owned_depth = {m: t.depth - shared_depth for m, t in towers.items()}
        self.owned = nnx.Dict(
            {m: Stack(t.block, owned_depth[m], [m], cfg.scan, rngs) for m, t in towers.items() if owned_depth[m]}
        )
        self.has_shared = bool(shared_depth)
        self.one_norm = cfg.stream_norms == "shared" and self.has_shared
        streams = [ALL] if self.one_norm else [*names, *([JOINT] if cfg.joint else [])]
        if self.has_shared:
            self.shared = Stack(cfg.tower.block, shared_depth, streams, cfg.scan, rngs)
        self.norms = nnx.Dict({s: layer_norm(towers.get(s, cfg.tower).block, rngs) for s in streams})

    def tokens(
        self, inputs: Mapping[str, jax.Array], length: Mapping[str, jax.Array], rng: jax.Array | None = None
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Raw inputs of the active modalities -> {m: (tokens [B, T, D], mask [B, T])} after the owned blocks."""
        out = {}
        for i, m in enumerate(sorted(inputs)):
            key = None if rng is None else jax.random.fold_in(rng, i)
            x, mask = self.tokenizers[m](inputs[m], length[m], key)
            out[m] = (self.owned[m](x, mask, m) if m in self.owned else x, mask)
        return out

    def stream(self, name: str, tokens: jax.Array, mask: jax.Array) -> Encoded:
        """The shared blocks on one stream (a modality's name, or the joint one)."""
        norm = ALL if self.one_norm else name
        if self.has_shared:
            tokens = self.shared(tokens, mask, norm)
        tokens = self.norms[norm](tokens)
        return Encoded(tokens, mask, pool(tokens, mask, self._pooling(name)))

    def _pooling(self, name: str) -> TowerConfig:
        """The joint stream has a class token per modality inside it, so it always takes the mean."""
        return replace(self.cfg.tower, class_token=False, pool="mean") if name == JOINT else self.cfg.for_modality(name)

    def joint(self, owned: Mapping[str, tuple[jax.Array, jax.Array]], select: Mapping[str, jax.Array]) -> Encoded:
        """One stream over the tokens of all modalities in `owned`; `select` bool [B] per modality hides the others."""
        names = sorted(owned)
        tokens = jnp.concatenate([owned[m][0] for m in names], axis=1)
        mask = jnp.concatenate([owned[m][1] & select[m][:, None] for m in names], axis=1)
        return self.stream(JOINT, tokens, mask)
