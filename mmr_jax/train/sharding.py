"""The mesh and the table that says how every parameter lies on it."""

import re
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import mesh_utils
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

    Neighbours in the mesh are neighbours in the machine. Of several TPU slices each holds a part of the data axis, so
    that only what crosses it (the sum of the gradients) goes over the network between them.
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
    return Mesh(_arranged(shape, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _arranged(shape: list[int], devices) -> np.ndarray:
    slices = len({getattr(d, "slice_index", 0) for d in devices})
    if slices == 1 or devices[0].platform != "tpu":  # of GPUs the hosts are numbered so
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if shape[0] % slices:
        raise UserError(f"mesh.data={shape[0]} is not divisible by the {slices} slices of devices that are connected")
    inner, outer = [shape[0] // slices, *shape[1:]], [slices, 1, 1]
    return mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)


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


def check_batch(batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """The global batch, or each of its `microbatches`, must divide over the data and fsdp axes."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (shards * microbatches):
        parts = f", in {microbatches} microbatches," if microbatches > 1 else ""
        raise UserError(f"batch size {batch_size}{parts} is not divisible by data x fsdp = {shards} devices")


def host_rows(batch_size: int, mesh: Mesh, process: int | None = None) -> np.ndarray:
    """The rows of a global batch that lie on the devices of a host (default: this one), ascending.

    They need not be contiguous: a mesh follows the wires between the devices. Hosts may share rows.
    """
    process = jax.process_index() if process is None else process
    slices = NamedSharding(mesh, BATCH).devices_indices_map((batch_size,))
    rows = np.arange(batch_size)
    return np.unique(np.concatenate([rows[i] for d, i in slices.items() if d.process_index == process]))


def replicated(tree, mesh: Mesh):
    """Arrays that are the same on all hosts -> on every device. jax.device_put would gather all copies to compare."""
    whole = NamedSharding(mesh, PartitionSpec())

    def put(x):
        if whole.is_fully_addressable or not getattr(x, "is_fully_addressable", True):
            return jax.device_put(x, whole)
        return jax.make_array_from_callback(np.shape(x), whole, lambda index: np.asarray(x)[index])

    return jax.tree.map(put, tree)


def put_batch(batch: Mapping, mesh: Mesh):
    """This host's rows of a batch (NumPy) -> global arrays on the mesh."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
