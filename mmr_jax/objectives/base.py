"""The protocol of an objective."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from mmr_jax import tree


class Objective(Protocol):
    """What is minimised: the only thing that differs between methods.

    Objectives are frozen dataclasses, hence hashable: two stages with equal objectives share one compiled step.
    `sources` names the batches that a step hands over. `extra` is state that the main optimiser does not touch.
    Subclasses define `init`, `loss` and `trains`; a method with inner optimisers overrides `value_and_grad`.
    """

    sources: tuple[str, ...]

    def init(self, key: jax.Array) -> tuple[dict, dict]:
        """Fresh (params, extra)."""

    def trains(self, path: str) -> bool:
        """Whether the parameter at `path` may change in this stage; the others are not differentiated."""

    def loss(self, params: dict, extra: dict, batches: Mapping, rng: jax.Array) -> tuple:
        """(loss float32 [], (metrics {name: []}, extra))."""

    def value_and_grad(self, params: dict, extra: dict, batches: Mapping, rng: jax.Array) -> tuple:
        """((loss, (metrics, extra)), gradients of the leaves that train)."""
        trained, frozen = tree.partition(params, self.trains)
        return jax.value_and_grad(
            lambda leaves: self.loss(tree.merge(leaves, frozen), extra, batches, rng), has_aux=True
        )(trained)


@dataclass(frozen=True)
class Frozen(Objective):
    """`base` with the parameters whose path matches one of the regexes `patterns` left as they are."""

    base: Objective
    patterns: tuple[str, ...]

    @property
    def sources(self):
        return self.base.sources

    def init(self, key):
        return self.base.init(key)

    def trains(self, path):
        return self.base.trains(path) and not any(re.search(p, path) for p in self.patterns)

    def loss(self, params, extra, batches, rng):
        return self.base.loss(params, extra, batches, rng)

    def value_and_grad(self, params, extra, batches, rng):
        if type(self.base).value_and_grad is Objective.value_and_grad:
            return super().value_and_grad(params, extra, batches, rng)  # what is frozen is not differentiated
        value, grads = self.base.value_and_grad(params, extra, batches, rng)
        return value, tree.partition(grads, self.trains)[0]


def weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """sum(values * weight) / sum(weight) over examples, 0 when nothing has weight; padded values may be anything."""
    total = jnp.sum(jnp.where(weight > 0, values * weight, 0.0))
    return total / jnp.maximum(jnp.sum(weight), jnp.finfo(jnp.float32).tiny)
