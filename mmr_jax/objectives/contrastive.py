"""Pairwise InfoNCE over all pairs of modalities (McKinzie et al. 2023, section 3.2; van den Oord et al. 2018)."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mmr_jax.models.model import Model, cut, l2_normalize
from mmr_jax.objectives.base import Objective, weighted_mean

_HIDDEN = -1e9
MAX_LOGIT_SCALE = 100.0


def _one_direction(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the valid queries (rows) of -log softmax of the diagonal among the valid candidates."""
    logits = jnp.where(mask[None, :], logits, _HIDDEN)
    losses = jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits)
    return jnp.sum(jnp.where(mask, losses, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def info_nce(
    z_a: jax.Array,
    z_b: jax.Array,
    temperature: float | jax.Array,
    symmetric: bool = True,
    mask: jax.Array | None = None,
) -> jax.Array:
    """InfoNCE between two views: z_a, z_b float [B, D] (L2-normalised here) -> float32 [].

    Row i of both belongs together. One-directional (`symmetric=False`): a is the query, all rows of b are candidates;
    otherwise the mean of both directions. `mask` bool [B] marks the pairs that exist: the others are neither query
    nor candidate. With fewer than two pairs the loss is 0 and so is its gradient.
    """
    mask = jnp.ones(z_a.shape[0], bool) if mask is None else mask.astype(bool)
    a, b = (l2_normalize(jnp.where(mask[:, None], z, 0.0).astype(jnp.float32)) for z in (z_a, z_b))
    logits = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST) / temperature
    loss = _one_direction(logits, mask)
    if symmetric:
        loss = (loss + _one_direction(logits.T, mask)) / 2
    return jnp.where(jnp.sum(mask) > 1, loss, 0.0)


def pairwise_info_nce(
    embeddings: Mapping[str, jax.Array],
    present: Mapping[str, jax.Array],
    temperature: float | jax.Array,
    direction: str = "both",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean of `info_nce` over all pairs of modalities that have at least two valid examples, and each pair's loss.

    embeddings {m: [B, D]}, present {m: bool [B]}. `direction`: both, or forward (of a pair the alphabetically first
    modality queries), or backward.
    """
    losses, used = {}, []
    for a, b in itertools.combinations(sorted(embeddings), 2):
        mask = present[a] & present[b]
        query, candidate = (b, a) if direction == "backward" else (a, b)
        losses[f"{a}-{b}"] = info_nce(embeddings[query], embeddings[candidate], temperature, direction == "both", mask)
        used.append(jnp.sum(mask) > 1)
    return sum(losses.values()) / jnp.maximum(sum(u.astype(jnp.float32) for u in used), 1.0), losses


def pair_accuracy(z_query: jax.Array, z_candidate: jax.Array, mask: jax.Array) -> jax.Array:
    """Share of the valid queries [B, D] whose most similar valid candidate is their own, float32 []."""
    queries, candidates = (l2_normalize(jnp.where(mask[:, None], z, 0.0)) for z in (z_query, z_candidate))
    similarity = jnp.where(mask[None, :], queries @ candidates.T, _HIDDEN)
    hit = (jnp.argmax(similarity, axis=1) == jnp.arange(mask.shape[0])).astype(jnp.float32)
    return weighted_mean(hit, mask.astype(jnp.float32))


@dataclass(frozen=True)
class Contrastive(Objective):
    """Contrastive pretraining on unlabelled data; the batch's statistics are global, not per device."""

    model: Model
    modalities: tuple[str, ...]
    temperature: float = 0.07
    learn_temperature: bool = False
    direction: str = "both"
    sources = ("unlabelled",)

    def init(self, key):
        params = self.model.init(key)
        if self.learn_temperature:
            params["logit_scale"] = jnp.log(jnp.float32(1.0 / self.temperature))
        return params, {}

    def trains(self, path):
        return self.model.in_pretraining(path, self.modalities, single=True, joint=False)

    def loss(self, params, extra, batches, rng):
        batch = batches["unlabelled"]
        inputs, length, present = cut(batch, self.modalities)
        present = {m: p & (batch["weight"] > 0) for m, p in present.items()}
        temperature = self.temperature
        if self.learn_temperature:
            params = dict(params)
            temperature = 1.0 / jnp.minimum(jnp.exp(params.pop("logit_scale")), MAX_LOGIT_SCALE)
        embeddings = self.model.bind(params).contrastive(inputs, length, rng)
        loss, pairs = pairwise_info_nce(embeddings, present, temperature, self.direction)
        return loss, (pairs, extra)
