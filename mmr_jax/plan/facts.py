"""What one step costs on a target, as plain numbers."""

from collections import Counter

import jax
from jax.sharding import Mesh

from mmr_jax.flops import count_flops
from mmr_jax.plan.collectives import find_collectives
from mmr_jax.plan.compiled import Compiled, compile_call
from mmr_jax.plan.steps import Call, Step, bytes_per_device
from mmr_jax.plan.target import Target

_DEAREST = 8
_HALVINGS = 6


def bytes_in_all(tree) -> int:
    """Of a tree of arrays or shapes, each once."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def step_facts(step: Step, useful: float, mesh: Mesh, target: Target) -> dict:
    """All that is known of a step; `useful` are the FLOPs of its batch without anything computed twice."""
    call = step.make(mesh, step.batch_size)
    made = compile_call(call, step.name)
    executed = count_flops(call.fn, *call.args)
    devices = len(target.devices)
    facts = {
        "name": step.name,
        "batch": step.batch_size,
        "compile_seconds": {"clock": made.seconds, "processor": made.processor},
        "memory": _memory(step, call, made, mesh, target),
        "flops": {
            "per_example": useful / step.batch_size,
            "per_device": useful / devices,
            "executed_per_device": executed.total / devices,
            "unbounded": executed.unbounded,
        },
    }
    if step.plan:
        facts["checkpoint_bytes"] = _checkpoint(step, call)
    if made.program:
        facts |= _from_program(made, useful / devices, target)
    if facts.get("cycles"):
        facts["input"] = _input(call, step.batch_size, facts["cycles"]["seconds"], target)
    return facts


def _from_program(made: Compiled, useful: float, target: Target) -> dict:
    """Cycles and collectives; cycles are None where the compiler estimates none."""
    found = find_collectives(made.program)
    cycles = made.cycles
    facts = {
        "collectives": [{**vars(c), "sent": c.sent} for c in found],
        "unbounded_loops": len(made.program.unbounded),
        "cycles": None,
    }
    if not cycles.total or not target.chip:
        return facts
    kinds = Counter()
    for (kind, _), count in cycles.by_operation.items():
        kinds[kind] += count
    seconds = cycles.total / target.chip.clock
    network = sum(c.sent for c in found) / (target.chip.link / 2 / target.chip.devices)
    facts["cycles"] = {
        "total": cycles.total,
        "seconds": seconds,
        "share_of_peak": useful / (cycles.total * target.chip.flop_per_cycle),
        "dearest": kinds.most_common(_DEAREST),
        "unknown": dict(cycles.unknown),
    }
    facts["network"] = {"seconds": network, "efficiency": seconds / (seconds + network)}
    return facts


def _memory(step: Step, call: Call, made: Compiled, mesh: Mesh, target: Target) -> dict:
    kinds = {kind: bytes_per_device(tree) for kind, tree in call.kinds.items()}
    grows = target.limit and "batch" in call.kinds
    largest = _largest_batch(step, made.total, mesh, target) if grows else None
    fits = target.limit and made.total <= target.limit
    return {"by_kind": kinds, **made.memory, "limit": target.limit, "fits": fits, "largest_batch": largest}


def _largest_batch(step: Step, total: int, mesh: Mesh, target: Target) -> int | None:
    """The largest global batch that fits, if memory were affine in it: from this batch and the next smaller one whose
    program fits, or the next larger one where no smaller one divides over the devices. None if it does not grow."""
    shards = step.shards(mesh)
    sizes = [step.batch_size // 2**n // shards * shards for n in range(1, _HALVINGS)]
    sizes = [n for n in dict.fromkeys(sizes) if 0 < n < step.batch_size]
    for size in sizes or [2 * step.batch_size]:
        other = compile_call(step.make(mesh, size), step.name)
        if other.program:
            break
    slope = (total - other.total) / (step.batch_size - size)
    if slope <= 0:
        return None
    return max(0, int(step.batch_size + (target.limit - total) / slope) // shards * shards)


def _checkpoint(step: Step, call: Call) -> int:
    """Bytes of the arrays of one checkpoint: the state, and the best parameters where a validation chooses."""
    state, recipe = call.args[0], step.plan.recipe
    chooses = recipe.get("select") == "best" and recipe.validate_every
    return bytes_in_all(state) + (bytes_in_all(state.params) if chooses else 0)


def _input(call: Call, size: int, seconds: float, target: Target) -> dict:
    """What the hosts have to deliver if steps take that long."""
    given = bytes_in_all(call.kinds.get("batch", ())) / target.hosts
    return {
        "hosts": target.hosts,
        "batches_per_second": 1 / seconds,
        "examples_per_second_per_host": size / seconds / target.hosts,
        "bytes_per_second_per_host": given / seconds,
    }
