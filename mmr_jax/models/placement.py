"""Where the examples of a batch lie: over which axes of the mesh in context, if there is one, and that they stay."""

import math

import jax
from jax.sharding import PartitionSpec

_BATCH_AXES = ("data", "fsdp")


def batch_axes() -> tuple[str, ...]:
    """The axes of the mesh in context that batches are split over."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(a for a in _BATCH_AXES if not mesh.empty and mesh.shape.get(a, 1) > 1)


def batch_shards() -> int:
    """Over how many devices batches are split."""
    return math.prod(jax.sharding.get_abstract_mesh().shape[a] for a in batch_axes())


def in_place(x: jax.Array) -> jax.Array:
    """`x` [B, ...] with each example on the device that has it.

    Else the compiler, which sees weights split over the same devices (fsdp), may split the channels of activations
    and send those instead of the weights.
    """
    axes = batch_axes()
    if not axes or x.shape[0] % batch_shards():
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))
