"""The multimodal encoder: a tokenizer and `adapter_depth` owned blocks per modality, then shared blocks.

adapter_depth = depth gives separate encoders (VATT, CLIP), depth - 1 the AV-MAE / CAV-MAE shape, 0 one trunk for all
(PolyViT). The shared blocks run one stream per modality or one joint stream over the concatenated tokens.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mmr_jax.models.blocks import Stack, layer_norm
from mmr_jax.models.encoder_config import ALL, JOINT, EncoderConfig, TowerConfig
from mmr_jax.models.tokenizers import make_tokenizer


class Encoded(NamedTuple):
    """What an encoder returns for a stream: tokens [B, T, D], mask bool [B, T], pooled [B, D]."""

    tokens: jax.Array
    mask: jax.Array
    pooled: jax.Array


def pool(tokens: jax.Array, mask: jax.Array, tower: TowerConfig) -> jax.Array:
    """[B, T, D] -> float32 [B, D]: masked mean over the patch tokens, the class token, or the last valid token.

    Zeros when all is masked.
    """
    if tower.pool == "cls":
        return jnp.where(mask[:, :1], tokens[:, 0].astype(jnp.float32), 0.0)
    if tower.pool == "last":
        place = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True) - 1, 0)
        last = jnp.take_along_axis(tokens, place[..., None], axis=1)[:, 0].astype(jnp.float32)
        return jnp.where(jnp.any(mask, axis=1, keepdims=True), last, 0.0)
    skip = int(tower.class_token)
    tokens, mask = tokens[:, skip:].astype(jnp.float32), mask[:, skip:, None]
    return jnp.sum(jnp.where(mask, tokens, 0.0), axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)


class MultimodalEncoder(nnx.Module):
    """Encoder over any number of modalities; see the module's docstring for the shapes it covers."""

    def __init__(self, cfg: EncoderConfig, modalities: Mapping[str, object], rngs: nnx.Rngs):
        self.cfg = cfg
        names = list(modalities)
        towers = {m: cfg.for_modality(m) for m in names}
        self.tokenizers = nnx.Dict({m: make_tokenizer(m, modalities[m], t, rngs) for m, t in towers.items()})
        shared_depth = cfg.tower.depth - cfg.adapter_depth
        owned_depth = {m: t.depth - shared_depth for m, t in towers.items()}
        self.owned = nnx.Dict(
            {m: Stack(t.block, owned_depth[m], [m], cfg.scan, rngs) for m, t in towers.items() if owned_depth[m]}
        )
        self.has_shared = bool(shared_depth)
        self.one_norm = cfg.stream_norms == "shared" and self.has_shared
        streams = [ALL] if self.one_norm else [*names, *([JOINT] if self.has_shared else [])]
        if self.has_shared:
            self.shared = Stack(cfg.tower.block, shared_depth, streams, cfg.scan, rngs)
        self.norms = nnx.Dict({s: layer_norm(towers.get(s, cfg.tower).block, rngs) for s in streams})

    def patches(
        self, inputs: Mapping[str, jax.Array], length: Mapping[str, jax.Array], rng: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Raw inputs of the active modalities -> {m: patches [B, T, patch_dim], or token ids [B, T]}."""
        keys = {m: None if rng is None else jax.random.fold_in(rng, i) for i, m in enumerate(sorted(inputs))}
        return {m: self.tokenizers[m].patches(inputs[m], length[m], key) for m, key in keys.items()}

    def embed(
        self, patches: Mapping[str, jax.Array], length: Mapping[str, jax.Array]
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Patches -> {m: (tokens [B, T, D] before the first block, mask [B, T])}."""
        return {m: self.tokenizers[m](patches[m], length[m]) for m in patches}

    def own(self, name: str, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """The blocks that modality `name` owns, [B, T, D] -> [B, T, D]."""
        return self.owned[name](tokens, mask, name) if name in self.owned else tokens

    def tokens(
        self, inputs: Mapping[str, jax.Array], length: Mapping[str, jax.Array], rng: jax.Array | None = None
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Raw inputs of the active modalities -> {m: (tokens [B, T, D], mask [B, T])} after the owned blocks."""
        embedded = self.embed(self.patches(inputs, length, rng), length)
        return {m: (self.own(m, x, mask), mask) for m, (x, mask) in embedded.items()}

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
