"""Collectives of compiled programs: written forms by hand, and a real program of eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmr_jax.plan.collectives import find_collectives
from mmr_jax.plan.hlo import Program
from mmr_jax.train.sharding import make_mesh


def found(*lines):
    text = "\n".join(f"  %{i} = {line}" for i, line in enumerate(lines))
    return find_collectives(
        Program("HloModule step, num_partitions=16\nENTRY %main (a: f32[8]) -> f32[8] {\n" + text + "\n}")
    )


@pytest.mark.parametrize(
    "line, kind, group, size, sent",
    [
        ("f32[4,8]{1,0:T(8,128)} all-reduce(%a), replica_groups={{0,1,2,3}}", "all-reduce", 4, 128, 192),
        ("f32[4,8]{1,0} all-reduce-start(%a), replica_groups=[2,4]<=[8]", "all-reduce", 4, 128, 192),
        ("(f32[8]{0}, bf16[8]{0}) all-reduce(%a, %b), replica_groups=[1,2]<=[2]", "all-reduce", 2, 48, 48),
        ("bf16[64]{0} all-gather(%a), replica_groups=[1,8]<=[8], dimensions={0}", "all-gather", 8, 128, 112),
        ("(f32[2]{0}, f32[8]{0}) all-gather-start(%a), replica_groups={{0,1,2,3}}", "all-gather", 4, 32, 24),
        ("f32[2]{0} reduce-scatter(%a), replica_groups={{0,1,2,3}}, dimensions={0}", "reduce-scatter", 4, 32, 24),
        ("(u8[9]{0}, u8[9]{0}, u32[], u32[]) collective-permute-start(%a)", "collective-permute", 2, 9, 9),
        ("f32[4]{0} all-reduce(%a), replica_groups=mesh['x'=2,'y'=8] {'y'}, to_apply=%add", "all-reduce", 8, 16, 28),
        ("f32[4]{0} all-reduce(%a), replica_groups=mesh['x'=2,'y'=8] {'x','y':(2)4}", "all-reduce", 8, 16, 28),
        ("f32[4]{0} all-reduce(%a), replica_groups={}, to_apply=%add", "all-reduce", 16, 16, 30),
        ("pred[16]{0} all-to-all(%a), replica_groups={{0,1}}", "all-to-all", 2, 16, 8),
    ],
)
def test_written_forms(line, kind, group, size, sent):
    (one,) = found(line)
    assert (one.kind, one.group, one.count, one.bytes, one.sent) == (kind, group, 1, size, sent)


def test_groups_of_one_send_nothing_and_ends_are_not_counted_again():
    assert found("f32[8] all-reduce(%a), replica_groups={{0},{1}}", "f32[8] all-reduce-done(%a)") == []


def test_a_real_program_in_a_loop():
    """Five sums of [6, 4] float32 over eight devices, and a permutation of [6, 4]."""
    mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    devices = len(jax.devices())

    def own(x):
        def body(x, _):
            return jnp.sin(jax.lax.psum(x, "data")), None

        ring = [(i, (i + 1) % devices) for i in range(devices)]
        return jax.lax.ppermute(jax.lax.scan(body, x, None, length=5)[0], "data", ring)

    spec = PartitionSpec("data")
    shape = jax.ShapeDtypeStruct((6 * devices, 4), np.float32, sharding=NamedSharding(mesh, spec))
    fn = jax.jit(jax.shard_map(own, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    reduced, moved = find_collectives(Program(fn.lower(shape).compile().as_text()))
    assert (reduced.kind, reduced.group, reduced.count, reduced.bytes) == ("all-reduce", devices, 5, 5 * 6 * 4 * 4)
    assert (moved.kind, moved.count, moved.bytes) == ("collective-permute", 1, 6 * 4 * 4)
