"""The shape of a multimodal encoder, from the `model` block of a config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from mmr_jax.errors import UserError, nearest
from mmr_jax.models.attention import IMPLEMENTATIONS
from mmr_jax.models.blocks import ACTIVATIONS, REMATS, BlockConfig

SIZES = {
    "Ti": (192, 12, 3, 768),
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
}
JOINT, ALL = "joint", "all"  # names of streams
# Values of the fields of a tower that have few.
CHOICES = {
    "activation": tuple(ACTIVATIONS),
    "pool": ("mean", "cls", "last"),
    "dtype": ("float32", "bfloat16", "float16"),
    "positions": ("learned", "sincos"),
    "attention": IMPLEMENTATIONS,
    "remat": tuple(REMATS),
}


@dataclass(frozen=True)
class TowerConfig:
    """One modality's part of the encoder (all towers are alike where blocks are shared)."""

    block: BlockConfig
    depth: int
    class_token: bool = False
    pool: str = "mean"
    positions: str = "learned"
    modality_token: bool = False
    pre_norm: bool = False
    patch_bias: bool = True


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
    conventions = (cfg.activation, cfg.norm_eps, cfg.causal, cfg.dtype, cfg.attention, cfg.remat)
    block = BlockConfig(width, heads, mlp_dim, *conventions)
    extras = (cfg.positions, cfg.modality_token, cfg.pre_norm, cfg.patch_bias)
    return TowerConfig(block, depth, cfg.class_token, cfg.pool, *extras)


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
