"""FLOP counts against counts by hand, and the price of evaluating every subset."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from mmr_jax import config as configs
from mmr_jax.flops import count_flops
from mmr_jax.models.blocks import BlockConfig, Stack
from mmr_jax.models.model import build_model
from mmr_jax.models.tokenizers import input_spec
from mmr_jax.robustness.evaluator import fused_embeddings
from mmr_jax.robustness.subsets import all_subsets, subset_masks
from mmr_jax.train.sharding import make_mesh


def ones(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_products_by_hand():
    assert count_flops(jnp.matmul, ones(3, 5), ones(5, 7)).total == 2 * 3 * 5 * 7
    assert count_flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), ones(4, 3, 5), ones(4, 5, 7)).total == 840
    assert count_flops(jnp.sin, ones(8)).total == 0


def test_convolutions_by_hand():
    def conv(groups):
        return lambda x, k: jax.lax.conv_general_dilated(
            x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    assert count_flops(conv(1), ones(2, 8, 8, 6), ones(3, 3, 6, 4)).total == 2 * (2 * 4 * 4 * 4) * (3 * 3 * 6)
    assert count_flops(conv(2), ones(2, 8, 8, 6), ones(3, 3, 3, 4)).total == 2 * (2 * 4 * 4 * 4) * (3 * 3 * 3)


def test_scanned_bodies_count_once_per_trip():
    def scanned(x, w):
        return jax.lax.scan(lambda x, w: (jax.lax.map(lambda row: row @ w, x), None), x, w)[0]

    found = count_flops(scanned, ones(4, 6), ones(5, 6, 6))
    assert found.total == 5 * 4 * 2 * 6 * 6
    assert found.calls["dot_general"] == 20


def test_nested_programs():
    def fn(x):
        x = jax.jit(lambda x: x @ x)(x)
        x = jax.checkpoint(lambda x: x @ x)(x)
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert count_flops(fn, ones(4, 4)).total == 4 * 2 * 4**3
    # forward, forward again, and two products of the backward pass
    again = count_flops(jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(x @ x))(x).sum()), ones(4, 4))
    assert again.total == 4 * 2 * 4**3


def test_loops_of_unknown_length_are_reported_apart():
    found = count_flops(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x), ones(4, 4))
    assert (found.total, found.unbounded) == (0, 2 * 4**3)


def test_a_sharded_body_counts_on_every_device():
    mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    spec = PartitionSpec("data")
    fn = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec)
    rows = 2 * len(jax.devices())
    assert count_flops(fn, ones(rows, 3), ones(3, 5)).total == 2 * rows * 3 * 5


@pytest.mark.parametrize("scan", [True, False])
def test_transformer_blocks_against_the_formula(scan):
    batch, length, width, mlp, depth = 2, 5, 8, 24, 3
    stack = Stack(BlockConfig(width, 2, mlp), depth, ["a"], scan, nnx.Rngs(0))
    mask = jnp.ones((batch, length), bool)
    found = count_flops(lambda x: stack(x, mask, "a"), ones(batch, length, width))
    linear = 2 * length * width * (3 * width + width + 2 * mlp)
    attention = 2 * 2 * length * length * width
    assert found.total == batch * depth * (linear + attention)


def evaluation_flops(config, subsets):
    frozen = configs.freeze(config)
    model = build_model(frozen.model, frozen.modalities, 24)
    specs, size = {m: input_spec(cfg) for m, cfg in config.modalities.items()}, 4
    batch = {
        "inputs": {m: jax.ShapeDtypeStruct((size, *shape), dtype) for m, (shape, dtype, _) in specs.items()},
        "length": {m: jax.ShapeDtypeStruct((size,), jnp.int32) for m in specs},
        "present": {m: jax.ShapeDtypeStruct((size,), bool) for m in specs},
    }
    masks = jnp.asarray(subset_masks(model.names, subsets))

    def scores(params, batch):
        return model.bind(params).classify(fused_embeddings(model, params, batch, masks)[0])

    return count_flops(scores, model.shapes, batch)


def test_all_subsets_cost_no_more_than_the_full_one():
    config = configs.load("configs/quickstart.py")
    every, full = (evaluation_flops(config, s) for s in (all_subsets(config.modalities), ["audio+text+video"]))
    assert every.unbounded == full.unbounded == 0
    assert 1.0 <= every.total / full.total <= 1.05
    # each encoder runs once per example: only the head's product is larger, none is added
    assert every.calls["dot_general"] == full.calls["dot_general"]


def test_the_joint_stream_repeats_the_shared_blocks_alone():
    config = configs.load(
        "configs/quickstart.py", {"model.fusion": "joint", "model.depth": 2, "model.adapter_depth": 1}
    )
    subsets = all_subsets(config.modalities)
    every, full = (evaluation_flops(config, s).total for s in (subsets, ["audio+text+video"]))
    assert 1.0 < every / full < len(subsets)
