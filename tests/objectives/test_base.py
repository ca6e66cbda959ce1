"""Frozen parameters, whatever way an objective has to its gradients."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mmr_jax import tree
from mmr_jax.objectives.base import Frozen, Objective

PARAMS = {"a": {"kernel": jnp.array([1.0, 2.0])}, "b": {"kernel": jnp.array([3.0])}, "c": jnp.array(4.0)}


@dataclass(frozen=True)
class Squares(Objective):
    """Half the sum of squares of everything; `c` does not train."""

    sources = ("labelled",)

    def trains(self, path):
        return path != "c"

    def loss(self, params, extra, batches, rng):
        return sum(jnp.sum(x**2) / 2 for x in jax.tree.leaves(params)), ({}, extra)


@dataclass(frozen=True)
class Doubled(Squares):
    """A way of its own to the gradients, and a count of steps in `extra`."""

    def value_and_grad(self, params, extra, batches, rng):
        (loss, (metrics, extra)), grads = super().value_and_grad(params, extra, batches, rng)
        return (loss, ({**metrics, "own": 1.0}, extra + 1)), jax.tree.map(lambda g: 2 * g, grads)


def test_frozen_parameters_have_no_gradient():
    (loss, (_, extra)), grads = Frozen(Squares(), ("a/",)).value_and_grad(PARAMS, 0, {}, None)
    assert float(loss) == (1 + 4 + 9 + 16) / 2 and extra == 0
    assert list(tree.flatten(grads)) == ["b/kernel"]
    np.testing.assert_array_equal(grads["b"]["kernel"], [3.0])


def test_the_own_gradients_of_an_objective_are_taken_when_some_parameters_are_frozen():
    (_, (metrics, extra)), grads = Frozen(Doubled(), ("a/",)).value_and_grad(PARAMS, 0, {}, None)
    assert extra == 1 and metrics == {"own": 1.0}
    assert list(tree.flatten(grads)) == ["b/kernel"]
    np.testing.assert_array_equal(grads["b"]["kernel"], [6.0])
