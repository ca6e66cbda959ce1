"""The edge between flax.nnx modules and everything else: split once, then plain nested dicts with string keys."""

import functools
from collections.abc import Callable

import jax
from flax import nnx


class Functional:
    """A module as pure functions of a nested dict of arrays.

    `build(rngs)` makes the module. `init(key)` gives its parameters; `bind(params)` gives the module with those
    parameters, for use inside a traced function. No RNG state lives in a module: randomness comes in at the call.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        self._build = build
        self.graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def init(self, key: jax.Array) -> dict:
        """Fresh parameters, float32, as a nested dict."""
        return nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(key)), nnx.Param))

    @functools.cached_property
    def shapes(self) -> dict:
        """The parameters as ShapeDtypeStructs: nothing is allocated."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def bind(self, params: dict) -> nnx.Module:
        """The module over `params`."""
        return nnx.merge(self.graphdef, params)
