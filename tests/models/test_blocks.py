from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmr_jax import tree
from mmr_jax.flops import count_flops
from mmr_jax.models.attention import attend
from mmr_jax.models.blocks import ACTIVATIONS, Block, BlockConfig, Stack
from mmr_jax.models.functional import Functional
from mmr_jax.models.model import masked_mean

CONFIG = BlockConfig(width=16, heads=2, mlp_dim=24)


def inputs(length=5, batch=3, seed=0, width=16):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, length, width)).astype(np.float32), rng.random((batch, length)) < 0.7


def naive_attention(q, k, v, mask, causal):
    """Softmax attention with loops, over the keys that a query may see; zeros where there is none."""
    out = np.zeros_like(q, dtype=np.float64)
    for b, i, h in np.ndindex(*q.shape[:3]):
        keys = [j for j in range(k.shape[1]) if mask[b, j] and (not causal or j <= i)]
        if keys:
            logits = np.array([q[b, i, h] @ k[b, j, h] for j in keys], np.float64) / np.sqrt(q.shape[-1])
            p = np.exp(logits - logits.max())
            out[b, i, h] = (p / p.sum()) @ v[b, keys, h]
    return out


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_the_naive_one(causal):
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 4, 6, 2, 8)).astype(np.float32)
    mask = rng.random((4, 6)) < 0.6
    mask[0], mask[1, 0] = False, False  # all masked, and (causal) a first query without a key
    np.testing.assert_allclose(
        attend(q, k, v, jnp.asarray(mask), causal), naive_attention(q, k, v, mask, causal), atol=1e-5
    )


def test_fully_masked_rows_give_zeros_with_finite_gradients():
    rng = np.random.default_rng(0)
    qkv = rng.normal(size=(3, 2, 4, 2, 8)).astype(np.float32)
    mask = jnp.array([[False] * 4, [True, False, True, True]])
    out, grads = jax.value_and_grad(lambda x: jnp.sum(attend(*x, mask) ** 2))(qkv)
    assert not np.asarray(attend(*qkv, mask))[0].any()
    assert np.isfinite(out) and np.isfinite(grads).all()
    assert not np.asarray(grads)[:, 0].any() and np.asarray(grads)[:, 1].any()


def test_bfloat16_attention_has_a_float32_softmax():
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in rng.normal(size=(3, 1, 64, 1, 8)))
    out = attend(q, k, v, jnp.ones((1, 64), bool))
    assert out.dtype == jnp.bfloat16
    exact = naive_attention(*(np.float64(x) for x in (q, k, v)), np.ones((1, 64), bool), False)
    np.testing.assert_allclose(np.float64(out), exact, atol=0.02)


def layer_norm(x, p, eps=1e-6):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def numpy_block(x, mask, p, stream):
    """The pre-LN block written in numpy."""
    norms = p["norms"][stream]
    qkv = linear(layer_norm(x, norms["attention"]), p["attention"]["qkv"])
    q, k, v = np.moveaxis(qkv.reshape(*x.shape[:2], 3, 2, 8), 2, 0)
    x = x + linear(naive_attention(q, k, v, mask, False).reshape(x.shape), p["attention"]["out"])
    hidden = linear(layer_norm(x, norms["mlp"]), p["mlp"]["up"])
    return x + linear(hidden * 0.5 * (1 + np.vectorize(__import__("math").erf)(hidden / np.sqrt(2))), p["mlp"]["down"])


def random_parameters(functional, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32) * 0.3, functional.shapes)


def test_a_block_equals_numpy():
    functional = Functional(lambda rngs: Block(CONFIG, ["a", "b"], rngs))
    p, (x, mask) = random_parameters(functional), inputs()
    mask[0] = False
    for stream in ("a", "b"):
        found = functional.bind(p)(x, jnp.asarray(mask), stream)
        np.testing.assert_allclose(found, numpy_block(np.float64(x), mask, p, stream), atol=2e-5)


def test_scanned_unrolled_and_looped_stacks_are_equal():
    (x, mask), depth = inputs(), 3
    stacks = [Functional(lambda rngs, s=s: Stack(CONFIG, depth, ["a"], s, rngs)) for s in (True, False)]
    p = random_parameters(stacks[0])
    assert jax.tree.structure(p) == jax.tree.structure(stacks[1].shapes)
    block = Functional(lambda rngs: Block(CONFIG, ["a"], rngs))
    looped = x
    for i in range(depth):
        layer = jax.tree.map(lambda a, i=i: a[i], p["layers"])
        looped = block.bind(layer)(looped, jnp.asarray(mask), "a")
    for stack in stacks:
        np.testing.assert_allclose(stack.bind(p)(x, jnp.asarray(mask), "a"), looped, rtol=1e-5, atol=1e-5)


def test_layers_of_a_stack_start_differently():
    kernel = Functional(lambda rngs: Stack(CONFIG, 2, ["a"], True, rngs)).init(jax.random.key(0))
    kernel = kernel["layers"]["mlp"]["up"]["kernel"]
    assert kernel.shape == (2, 16, 24) and np.abs(kernel[0] - kernel[1]).max() > 0.1


def test_an_empty_stack_has_no_leaves_and_returns_its_input():
    functional = Functional(lambda rngs: Stack(CONFIG, 0, ["a"], True, rngs))
    assert functional.init(jax.random.key(0)) == {}
    x, mask = inputs()
    assert functional.bind({})(x, mask, "a") is x


def test_causal_blocks_do_not_look_ahead():
    functional = Functional(lambda rngs: Stack(BlockConfig(16, 2, 24, causal=True), 2, ["a"], True, rngs))
    p, (x, _) = random_parameters(functional), inputs()
    mask = jnp.ones(x.shape[:2], bool)
    changed = x.copy()
    changed[:, 3:] += 1
    before, after = (np.asarray(functional.bind(p)(y, mask, "a")) for y in (x, changed))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3:] - after[:, 3:]).min() > 0


@pytest.mark.parametrize(
    "name, expected", [("gelu", 0.84134475), ("gelu_tanh", 0.84119199), ("quick_gelu", 0.84579577)]
)
def test_activations_at_one(name, expected):
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.float32(1)), expected, rtol=1e-6)


def test_masked_mean_identities():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(6, 3, 4)).astype(np.float32)
    every = np.ones((6, 3), bool)
    np.testing.assert_allclose(masked_mean(z, every), z.mean(1), atol=1e-6)
    for m in range(3):  # one modality: its own embedding, bit for bit
        np.testing.assert_array_equal(masked_mean(z, every & (np.arange(3) == m)), z[:, m])
    assert not np.asarray(masked_mean(z, ~every)).any()
    mask = rng.random((6, 3)) < 0.5
    left_out = [z[i, mask[i]].mean(0) if mask[i].any() else np.zeros(4) for i in range(6)]
    np.testing.assert_allclose(masked_mean(z, mask), left_out, atol=1e-6)
    spoilt = np.where(mask[..., None], z, np.nan)
    np.testing.assert_array_equal(masked_mean(spoilt, mask), masked_mean(z, mask))


def test_no_rng_state_in_modules():
    functional = Functional(lambda rngs: Block(CONFIG, ["a"], rngs))
    assert not jax.tree.leaves(nnx.state(functional.bind(functional.shapes), nnx.RngState))


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputing_changes_no_gradient_and_costs_what_it_says(remat, scan):
    x, mask = inputs(length=8)
    params = stack_parameters(CONFIG, scan)

    def cost(remat):
        stack = Functional(lambda rngs: Stack(replace(CONFIG, remat=remat), 3, ["a"], scan, rngs))
        loss = lambda p, x: jnp.sum(jnp.sin(stack.bind(p)(x, mask, "a")))  # noqa: E731
        both = jax.grad(loss, argnums=(0, 1))
        return both(params, x), count_flops(both, params, x).total, count_flops(loss, params, x).total

    (grads, flops, forward), (again, more, _) = cost("none"), cost(remat)
    for path, expected in tree.flatten(dict(enumerate(grads))).items():
        np.testing.assert_allclose(tree.flatten(dict(enumerate(again)))[path], expected, atol=1e-5, err_msg=str(path))
    attention = 3 * 2 * (2 * 3 * 8 * 8 * 16)  # layers x (queries with keys, weights with values)
    low, high = (0, attention) if remat == "dots" else (0.6 * forward, forward)
    assert low < more - flops <= high


@pytest.mark.parametrize("remat, attention, kept", [
    ("full", "kernel", 1),  # the tokens that go into a block
    ("dots", "xla", 3 + 1 + 1 + 1),  # and q, k, v, what the heads' sum becomes, and what the activation takes
    ("dots", "kernel", 3 + 1 + 1 + 1 + 1),  # and the attention itself, as nothing else spares the kernel
])  # fmt: skip
def test_what_a_block_keeps_for_the_backward_pass(remat, attention, kept):
    cfg = replace(CONFIG, width=128, heads=2, mlp_dim=128, dtype="bfloat16", attention=attention, remat=remat)
    stack, (x, mask) = Functional(lambda rngs: Stack(cfg, 3, ["a"], True, rngs)), inputs(length=8, width=128)
    run = lambda p, x: stack.bind(p)(x.astype(jnp.bfloat16), mask, "a")  # noqa: E731
    backward = jax.eval_shape(lambda p, x: jax.vjp(run, p, x)[1], stack.shapes, x)
    of_tokens = [leaf for leaf in jax.tree.leaves(backward) if leaf.shape[:3] == (3, *x.shape[:2])]
    assert sum(leaf.shape[3] for leaf in of_tokens) == kept * 128
    assert {leaf.dtype for leaf in of_tokens} == {jnp.dtype("bfloat16")}


def stack_parameters(cfg, scan):
    return Functional(lambda rngs: Stack(cfg, 3, ["a"], scan, rngs)).init(jax.random.key(0))
