"""Where the examples of a batch lie: over which axes of the mesh in context, if there is one, and that they stay."""

import math
from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

_BATCH_AXES = ("data", "fsdp")


def within(mesh: Mesh, fn: Callable) -> Callable:
    """`fn` with the mesh in context, to be compiled."""

    def run(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return fn(*args)

    return run


def on_tpu() -> bool:
    """Whether the devices of the mesh in context, which need not be there, are TPUs; without a mesh, the default's."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.abstract_device is None:
        return jax.default_backend() == "tpu"
    return mesh.abstract_device.device_kind.startswith("TPU")


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
