"""Modality dropout: the plain baseline against missing modalities (e.g. arXiv 2310.06383)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mmr_jax.objectives.supervised import Supervised


@dataclass(frozen=True)
class ModalityDropout(Supervised):
    """Supervised training in which each example shows a random non-empty subset of its modalities.

    A modality is hidden with probability `rate`; an example that would lose all keeps all.
    """

    rate: float = 0.5

    def select(self, present, rng):
        names = sorted(present)
        there = jnp.stack([present[m] for m in names])
        keep = there & ~jax.random.bernoulli(rng, self.rate, there.shape)
        keep = jnp.where(jnp.any(keep, axis=0), keep, there)
        return dict(zip(names, keep, strict=True))
