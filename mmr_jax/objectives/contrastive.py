"""Contrastive losses over all pairs of modalities: InfoNCE (McKinzie et al. 2023, section 3.2; van den Oord et al.
2018) and the sigmoid loss (Zhai et al. 2023)."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mmr_jax.models.model import Model, cut, l2_normalize
from mmr_jax.objectives.base import Objective, weighted_mean
from mmr_jax.objectives.logit_sums import COLUMNS, LOGSUMEXP, ROWS, SIDES, SOFTPLUS, logit_sums, pair_logits
from mmr_jax.objectives.microbatches import in_microbatches

_HIDDEN = -1e9
MAX_LOGIT_SCALE = 100.0
LOSSES = ("info_nce", "sigmoid")
CONTRASTS = ("plain", "chunked", "ring")
# The sides whose queries count: rows are those of a pair's alphabetically first modality.
_SIDES = {"both": SIDES, "forward": (ROWS,), "backward": (COLUMNS,)}


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
    direction = "both" if symmetric else "forward"
    return pairwise_info_nce({"a": z_a, "b": z_b}, {"a": mask, "b": mask}, temperature, direction)[0]


def pairwise_info_nce(
    embeddings: Mapping[str, jax.Array],
    present: Mapping[str, jax.Array],
    temperature: float | jax.Array,
    direction: str = "both",
    contrast: str = "plain",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean of `info_nce` over all pairs of modalities that have at least two valid examples, and each pair's loss.

    embeddings {m: [B, D]}, present {m: bool [B]}. `direction`: both, or forward (of a pair the alphabetically first
    modality queries), or backward. `contrast`: how the logits are gone through (see `logit_sums`); the loss is equal.
    """
    return _pairwise(embeddings, present, 1.0 / temperature, 0.0, LOGSUMEXP, _SIDES[direction], 2, contrast)


def pairwise_sigmoid(
    embeddings: Mapping[str, jax.Array],
    present: Mapping[str, jax.Array],
    temperature: float | jax.Array,
    bias: float | jax.Array,
    contrast: str = "plain",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The sigmoid loss (Zhai et al. 2023): mean over the pairs of modalities that have an example, and each pair's.

    Of a pair with n valid examples: -1/n sum_ij log sigmoid(l_ij (cos_ij / temperature + bias)), l_ij = 1 for what
    belongs together, else -1. Arguments as for `pairwise_info_nce`.
    """
    return _pairwise(embeddings, present, 1.0 / temperature, bias, SOFTPLUS, (ROWS,), 1, contrast)


def pairwise_loss(
    name: str,
    embeddings: Mapping[str, jax.Array],
    present: Mapping[str, jax.Array],
    temperature: float | jax.Array,
    direction: str,
    bias: float | jax.Array,
    contrast: str,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of that name, one of `LOSSES`, which does not use all arguments."""
    if name == "sigmoid":
        return pairwise_sigmoid(embeddings, present, temperature, bias, contrast)
    return pairwise_info_nce(embeddings, present, temperature, direction, contrast)


def _pairwise(embeddings, present, scale, bias, reduction, sides, least, contrast):
    """Both losses: the mean over the valid examples of a pair of (sum over all candidates - logit of the own one).

    With log-sum-exp that is InfoNCE. With softplus it is the sigmoid loss, since softplus(-x) = softplus(x) - x.
    """
    names = sorted(embeddings)
    there = jnp.stack([present[m].astype(bool) for m in names])
    z = jnp.stack([embeddings[m] for m in names]).astype(jnp.float32)
    z = l2_normalize(jnp.where(there[..., None], z, 0.0))
    pairs = list(itertools.combinations(range(len(names)), 2))
    mask = jnp.stack([there[i] & there[j] for i, j in pairs])
    operands = (z[:-1] * scale, jnp.full((1, z.shape[1]), bias, jnp.float32), z[1:])
    sums = [s for s in logit_sums(contrast, reduction, sides, *operands, mask) if s is not None]
    each = jnp.where(mask, sum(sums) / len(sums) - pair_logits(*operands), 0.0)
    count = jnp.sum(mask, axis=1)
    losses = jnp.where(count >= least, jnp.sum(each, axis=1) / jnp.maximum(count, 1), 0.0)
    mean = jnp.sum(losses) / jnp.maximum(jnp.sum(count >= least), 1)
    return mean, {f"{names[i]}-{names[j]}": loss for (i, j), loss in zip(pairs, losses, strict=True)}


def pair_accuracy(z_query: jax.Array, z_candidate: jax.Array, mask: jax.Array) -> jax.Array:
    """Share of the valid queries [B, D] whose most similar valid candidate is their own, float32 []."""
    queries, candidates = (l2_normalize(jnp.where(mask[:, None], z, 0.0)) for z in (z_query, z_candidate))
    similarity = jnp.where(mask[None, :], queries @ candidates.T, _HIDDEN)
    hit = (jnp.argmax(similarity, axis=1) == jnp.arange(mask.shape[0])).astype(jnp.float32)
    return weighted_mean(hit, mask.astype(jnp.float32))


@dataclass(frozen=True)
class Contrastive(Objective):
    """Contrastive pretraining on unlabelled data; the batch's statistics are global, not per device.

    `loss_name`: info_nce or sigmoid, whose logits have a bias; `direction` is InfoNCE's alone. `learn_temperature`
    trains the temperature, and the bias where there is one, from the values given.
    """

    model: Model
    modalities: tuple[str, ...]
    temperature: float = 0.07
    learn_temperature: bool = False
    direction: str = "both"
    loss_name: str = "info_nce"
    contrast: str = "plain"
    bias: float = 0.0
    microbatches: int = 1
    sources = ("unlabelled",)

    def init(self, key):
        params = self.model.init(key)
        if self.learn_temperature:
            params["logit_scale"] = jnp.log(jnp.float32(1.0 / self.temperature))
        if self.learn_temperature and self.loss_name == "sigmoid":
            params["logit_bias"] = jnp.float32(self.bias)
        return params, {}

    def trains(self, path):
        return self.model.in_pretraining(path, self.modalities, single=True, joint=False)

    def loss(self, params, extra, batches, rng):
        batch, params = batches["unlabelled"], dict(params)
        inputs, length, present = cut(batch, self.modalities)
        present = {m: p & (batch["weight"] > 0) for m, p in present.items()}
        temperature, bias = self.temperature, params.pop("logit_bias", self.bias)
        if self.learn_temperature:
            most = MAX_LOGIT_SCALE if self.loss_name == "info_nce" else jnp.inf
            temperature = 1.0 / jnp.minimum(jnp.exp(params.pop("logit_scale")), most)
        model = self.model.bind(params)
        embeddings = in_microbatches(
            lambda rng, *part: model.contrastive(*part, rng), self.microbatches, rng, inputs, length
        )
        given = (embeddings, present, temperature, self.direction, bias, self.contrast)
        loss, pairs = pairwise_loss(self.loss_name, *given)
        return loss, (pairs, extra)
