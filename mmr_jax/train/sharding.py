"""The mesh and the table that says how every parameter lies on it."""

import re
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmr_jax.errors import UserError
from mmr_jax.train.optim import path_string

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# First match wins; a spec speaks of the last axes, so a leading layer axis stays whole.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(qkv|up)/kernel$", ("fsdp", "tensor")),
    (r"(attention/out|down)/kernel$", ("tensor", "fsdp")),
    (r"(embed|hidden|projections/[^/]+/out|predict|head)/kernel$", ("fsdp", None)),
    (r"embedding$", (None, "fsdp")),
    (r"(bias|scale|position|(class|modality|mask)_token|logit_scale)$", ()),
)


def make_mesh(sizes: Mapping[str, int], devices=None) -> Mesh:
    """A ("data", "fsdp", "tensor") mesh; one size may be -1 and takes the devices that are left.

    Axis types are Auto: the compiler propagates the shardings (Explicit mode refuses much of this code).
    """
    devices = jax.devices() if devices is None else devices
    shape = [int(sizes[a]) for a in AXES]
    known = int(np.prod([s for s in shape if s > 0]))
    if shape.count(-1) == 1 and len(devices) % known == 0:
        shape[shape.index(-1)] = len(devices) // known
    if -1 in shape or np.prod(shape) != len(devices):
        raise UserError(
            f"mesh {dict(sizes)} does not fit {len(devices)} devices: the product of the sizes must be that"
        )
    return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The spec of one leaf by `RULES`; an axis that the mesh does not divide stays whole. Scalars are replicated."""
    if not shape:
        return PartitionSpec()
    for pattern, axes in RULES:
        if re.search(pattern, path):
            axes = (None,) * (len(shape) - len(axes)) + axes
            fits = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True)]
            return PartitionSpec(*fits)
    raise UserError(f"no sharding rule matches parameter {path!r}: add one to RULES in train/sharding.py")


def state_sharding(state, mesh: Mesh):
    """NamedShardings for a whole train state: moments and averages lie where their parameter lies."""

    def rule(path, leaf):
        return NamedSharding(mesh, partition_spec(path_string(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(rule, state)


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """The global batch must divide over the data and fsdp axes."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % shards:
        raise UserError(f"batch size {batch_size} is not divisible by data x fsdp = {shards} devices")


def put_batch(batch: Mapping, mesh: Mesh):
    """This host's slice of a batch (NumPy) -> global arrays on the mesh."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
