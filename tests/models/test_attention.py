import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmr_jax.errors import UserError
from mmr_jax.models import blocks
from mmr_jax.models.attention import plain_attention, uses_kernel
from mmr_jax.models.attention_kernel import grouped, kernel_attention
from mmr_jax.models.blocks import Block, BlockConfig
from mmr_jax.models.functional import Functional
from mmr_jax.train.sharding import BATCH, make_mesh


def example(length, width, batch=4, seed=0):
    """qkv, its bias, mask (one example sees nothing, one all) and a direction in which to differentiate."""
    rng = np.random.default_rng(seed)
    mask = rng.random((batch, length)) < 0.6
    mask[0], mask[1] = False, True
    draw = lambda n: jnp.asarray(rng.normal(size=(batch, length, n)), jnp.float32)  # noqa: E731
    return draw(3 * width), jnp.asarray(rng.normal(size=3 * width), jnp.float32), jnp.asarray(mask), draw(width)


def plain(qkv, bias, mask, heads, causal=False):
    return plain_attention(qkv + bias.astype(qkv.dtype), mask, heads, causal)


def fast(qkv, bias, mask, heads, causal=False):
    """The kernel, interpreted, of columns that are not in its order."""
    return kernel_attention(grouped(qkv), grouped(bias), mask, heads, causal, True)


def value_and_gradients(attention, qkv, bias, mask, direction):
    """Output, and the gradients of its product with `direction` for qkv and bias."""
    out, pull = jax.vjp(lambda x, b: attention(x, b, mask), qkv, bias)
    return out, *pull(direction.astype(out.dtype))


def assert_close(want, got):
    """Equal to 1e-5 of the largest value, or of 1."""
    for a, b in zip(want, got, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, float(jnp.abs(a).max())))


def slowly(cases):
    """Parameters that are left out of the quick tests."""
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


CASES = [(5, 128, 4, False), (40, 256, 8, False), (37, 256, 4, True), (20, 128, 1, False), (9, 128, 2, True)]


@pytest.mark.parametrize("length, width, heads, causal", [*CASES[1:3], *slowly(CASES[:1] + CASES[3:])])
def test_the_kernel_equals_plain_attention(length, width, heads, causal):
    given = example(length, width)
    want, got = (value_and_gradients(functools.partial(f, heads=heads, causal=causal), *given) for f in (plain, fast))
    assert_close(want, got)
    assert not np.asarray(got[0])[0].any() and not np.asarray(got[1])[0].any()  # the example that sees nothing
    assert np.asarray(got[1])[1].any(axis=-1).all() and np.asarray(got[2]).any()


def test_the_kernel_ignores_what_hidden_tokens_hold():
    qkv, bias, mask, _ = example(16, 128)
    spoilt = jnp.where(mask[..., None], qkv, 1e4)
    seen = np.asarray(mask)
    np.testing.assert_array_equal(
        np.asarray(fast(qkv, bias, mask, 4))[seen], np.asarray(fast(spoilt, bias, mask, 4))[seen]
    )


def test_bfloat16_kernel_is_as_close_to_float32_as_plain_attention():
    qkv, bias, mask, direction = example(48, 128)
    half = qkv.astype(jnp.bfloat16), bias.astype(jnp.bfloat16)
    exact = value_and_gradients(
        functools.partial(plain, heads=4), *(x.astype(jnp.float32) for x in half), mask, direction
    )
    found = [value_and_gradients(functools.partial(f, heads=4), *half, mask, direction) for f in (plain, fast)]
    for a, b, c in zip(exact, *found, strict=True):
        error = [np.sqrt(np.mean((np.float64(a) - np.float64(x)) ** 2)) for x in (b, c)]
        assert c.dtype == jnp.bfloat16 and error[1] < 1.2 * error[0]
        assert error[0] < 0.02 * max(1.0, float(jnp.std(a)))


def test_the_gradient_of_the_bias_is_summed_in_float32():
    """Many tokens in bfloat16: a sum of rounded gradients, or in bfloat16, would be further off."""
    qkv, bias, mask, direction = example(300, 128)
    half = qkv.astype(jnp.bfloat16)
    run = lambda f, x: value_and_gradients(functools.partial(f, heads=4), x, bias, mask, direction)[2]  # noqa: E731
    exact, rough, found = run(plain, half.astype(jnp.float32)), run(plain, half), run(fast, half)
    assert found.dtype == jnp.float32
    assert jnp.linalg.norm(found - exact) < jnp.linalg.norm(rough - exact)


def test_grouped_puts_q_k_and_v_of_the_same_channels_side_by_side():
    names = jnp.asarray([[part * 1000 + channel for part in range(3) for channel in range(256)]])
    found = np.asarray(grouped(names))[0].reshape(2, 3, 128)
    for group, part in np.ndindex(2, 3):
        np.testing.assert_array_equal(found[group, part], part * 1000 + group * 128 + np.arange(128))


def test_blocks_with_and_without_the_kernel_are_equal(monkeypatch):
    """The same parameters, through the whole block, with the gradients of all of them."""
    monkeypatch.setattr(blocks, "kernel_attention", functools.partial(kernel_attention, interpret=True))
    x, _, mask, direction = example(24, 128)
    x = x[..., :128]
    params, found = None, {}
    for implementation in ("xla", "kernel"):
        cfg = BlockConfig(128, 4, 256, dtype="bfloat16", attention=implementation)
        block = Functional(lambda rngs, cfg=cfg: Block(cfg, ["a"], rngs))
        params = params or block.init(jax.random.key(0))

        def loss(p, x, block=block):
            return jnp.sum(block.bind(p)(x.astype(jnp.bfloat16), mask, "a").astype(jnp.float32) * direction)

        found[implementation] = jax.tree.leaves(jax.grad(loss, argnums=(0, 1))(params, x))
    for a, b in zip(found["xla"], found["kernel"], strict=True):
        np.testing.assert_allclose(a, b, atol=0.03 * float(jnp.abs(a).max()))


def test_each_device_takes_its_own_examples(monkeypatch):
    mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    qkv, bias, mask, direction = example(12, 128, batch=2 * len(jax.devices()))
    want = value_and_gradients(functools.partial(plain, heads=4), qkv, bias, mask, direction)
    with jax.set_mesh(mesh):
        placed, seen, along = jax.device_put((qkv, mask, direction), NamedSharding(mesh, BATCH))
        run = jax.jit(functools.partial(value_and_gradients, functools.partial(fast, heads=4)))
        got = run(placed, bias, seen, along)
    assert got[0].sharding.spec == PartitionSpec(("data", "fsdp")) or len(jax.devices()) == 1
    assert_close(want, got)


def test_auto_is_the_kernel_where_the_mesh_is_of_tpus():
    """Also of TPUs that are not there, as in `mmr plan`; each device must have whole examples."""
    for kind, platform, expected in (("TPU v5 lite", "tpu", True), ("NVIDIA H100 80GB HBM3", "cuda", False)):
        device = jax.sharding.AbstractDevice(kind, None, platform)
        mesh = jax.sharding.AbstractMesh((4, 1, 1), ("data", "fsdp", "tensor"), abstract_device=device)
        with jax.sharding.use_abstract_mesh(mesh):
            assert uses_kernel("auto", (8, 128, 768), 12, "bfloat16") == expected
            assert not uses_kernel("auto", (6, 128, 768), 12, "bfloat16")


def test_auto_stays_with_xla_off_tpus_and_kernel_refuses_what_it_cannot_take():
    assert not uses_kernel("auto", (8, 128, 768), 12, "bfloat16")
    assert uses_kernel("kernel", (8, 128, 768), 12, "bfloat16")
    for shape, heads, dtype in (((8, 128, 768), 12, "float32"), ((8, 2000, 768), 12, "bfloat16")):
        with pytest.raises(UserError, match="model.attention='kernel'"):
            uses_kernel("kernel", shape, heads, dtype)
    with pytest.raises(UserError, match="3 heads of 21"):
        uses_kernel("kernel", (8, 128, 63), 3, "bfloat16")
