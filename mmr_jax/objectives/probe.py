"""Linear probes of all training subsets at once, on embeddings that are computed once."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mmr_jax.objectives.base import Objective, weighted_mean
from mmr_jax.objectives.supervised import classification_loss


@dataclass(frozen=True)
class LinearProbe(Objective):
    """One linear head per subset over its fused embedding; the heads do not see each other.

    A batch holds `inputs["fused"]` float32 [B, S, D] and `present["fused"]` bool [B, S]. Heads start from zero.
    """

    subsets: int
    dim: int
    num_classes: int
    sources = ("labelled",)

    def init(self, key):
        shape = (self.subsets, self.dim, self.num_classes)
        return {"head": {"kernel": jnp.zeros(shape), "bias": jnp.zeros((self.subsets, self.num_classes))}}, {}

    def trains(self, path):
        return True

    def loss(self, params, extra, batches, rng):
        batch, head = batches["labelled"], params["head"]
        logits = jnp.einsum("bsd,sdc->sbc", batch["inputs"]["fused"], head["kernel"]) + head["bias"][:, None]
        weight = jnp.where(batch["present"]["fused"].T, batch["weight"], 0.0)
        losses = jax.vmap(lambda z, w: weighted_mean(classification_loss(z, batch["label"]), w))(logits, weight)
        # a sum, not a mean: each head's gradient is that of a probe trained on its own
        return jnp.sum(losses), ({"task_loss": jnp.mean(losses)}, extra)
