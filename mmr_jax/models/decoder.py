"""The decoder of masked pretraining: one small transformer over all modalities (MAE; CAV-MAE, Eqs. 8 and 9)."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import FrozenConfigDict

from mmr_jax.models.blocks import BlockConfig, Stack, layer_norm
from mmr_jax.models.functional import Functional
from mmr_jax.models.model import Model
from mmr_jax.models.patches import sincos

STREAM = "decoder"


@dataclass(frozen=True)
class OutputConfig:
    """What the decoder predicts of one modality: `dim` numbers at each place of `grid`."""

    grid: tuple[int, ...]
    axes: tuple[int, ...]
    dim: int
    class_token: bool
    modality_token: bool


class Output(nnx.Module):
    """A modality's part of the decoder: fixed sin-cos positions, modality token, last projection."""

    def __init__(self, cfg: OutputConfig, block: BlockConfig, rngs: nnx.Rngs):
        table = jnp.pad(sincos(cfg.grid, cfg.axes, block.width), ((int(cfg.class_token), 0), (0, 0)))
        normal, init = nnx.initializers.normal(0.02), nnx.initializers.xavier_uniform()
        self.position = nnx.Param(table)
        self.modality_token = nnx.Param(normal(rngs.params(), (1, block.width))) if cfg.modality_token else None
        self.first = int(cfg.class_token)
        self.predict = nnx.Linear(block.width, cfg.dim, kernel_init=init, dtype=jnp.dtype(block.dtype), rngs=rngs)

    def place(self, x: jax.Array) -> jax.Array:
        """Tokens [B, T, D] with position and modality added."""
        added = self.position[...] if self.modality_token is None else self.position[...] + self.modality_token[...]
        return x + added.astype(x.dtype)

    def read(self, x: jax.Array) -> jax.Array:
        """Tokens [B, T', D] -> predictions of the patches float32 [B, T, dim]."""
        return self.predict(x[:, self.first :]).astype(jnp.float32)


class Decoder(nnx.Module):
    """Every patch of every modality from the visible tokens; the modalities share all but the last projection."""

    def __init__(
        self,
        width: int,
        block: BlockConfig,
        depth: int,
        scan: bool,
        outputs: Mapping[str, OutputConfig],
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.xavier_uniform()
        self.embed = nnx.Linear(width, block.width, kernel_init=init, dtype=jnp.dtype(block.dtype), rngs=rngs)
        self.mask_token = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (1, block.width)))
        self.blocks = Stack(block, depth, [STREAM], scan, rngs)
        self.norm = layer_norm(block, rngs)
        self.outputs = nnx.Dict({m: Output(cfg, block, rngs) for m, cfg in outputs.items()})

    def __call__(self, latent: jax.Array, places: Mapping) -> dict[str, jax.Array]:
        """Latents float [B, K, D] of the visible tokens, {m: Places} -> {m: predictions float32 [B, T, dim]}.

        Where a token has no latent the mask token stands in; tokens that do not exist are never attended to.
        """
        latent, names, x = self.embed(latent), sorted(places), []
        for m in names:
            index, visible, _ = places[m]
            found = jnp.take_along_axis(latent, index[..., None], axis=1)
            full = jnp.where(visible[..., None], found, self.mask_token[...].astype(found.dtype))
            x.append(self.outputs[m].place(full))
        exists = jnp.concatenate([places[m].exists for m in names], axis=1)
        x = self.norm(self.blocks(jnp.concatenate(x, axis=1), exists, STREAM))
        ends = np.cumsum([places[m].index.shape[1] for m in names])[:-1]
        return {m: self.outputs[m].read(part) for m, part in zip(names, jnp.split(x, ends, axis=1), strict=True)}


@functools.lru_cache(maxsize=32)
def build_decoder(model: Model, cfg: FrozenConfigDict, modalities: tuple[str, ...]) -> Functional:
    """The decoder of `pretrain.decoder` for some modalities of a model. Equal arguments give the same object."""
    tower, tokenizers = model.encoder.tower, model.bind(model.shapes).encoder.tokenizers
    outer = tower.block
    shape = cfg.width, cfg.heads, cfg.mlp_dim, outer.activation, outer.norm_eps
    block = BlockConfig(*shape, dtype=outer.dtype, attention=outer.attention, remat=outer.remat)
    outputs = {m: _output(tokenizers[m]) for m in modalities}
    return Functional(lambda rngs: Decoder(outer.width, block, cfg.depth, model.encoder.scan, outputs, rngs))


def _output(tokenizer) -> OutputConfig:
    dim = tokenizer.cfg.vocab_size if tokenizer.cfg.kind == "text" else tokenizer.patch_dim
    tower = tokenizer.tower
    return OutputConfig(tokenizer.grid, tokenizer.axes, dim, tower.class_token, tower.modality_token)
