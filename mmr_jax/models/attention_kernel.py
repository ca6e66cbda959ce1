"""A kernel for self-attention on TPUs that keeps the logits on the chip.

XLA writes the [T, T] logits of every head to memory and reads them back several times; at the 708 tokens in 16 heads
of a CAV-MAE decoder that is most of the training step. The kernel holds the whole sequence of 128 channels (one or
more heads) in the chip's own memory: nothing but q, k, v and the output moves. Its backward pass computes the softmax
again, so it keeps nothing. Heads narrower than 128 channels are taken apart by zeroing the channels of the others,
which costs nothing where the matrix unit is 128 wide anyway, and spares every transposition between layouts.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

LANES = 128
LONGEST = 1024  # tokens whose logits, probabilities and their gradients fit the memory of a chip
_BATCH_AXES = ("data", "fsdp")  # of the mesh, see train/sharding.py
_ROWS = 512  # tokens of several short examples that one program of the kernel takes together
_HIDDEN, _EMPTY = -1e30, -1e20  # bias of a hidden key; the least maximum of a row, which only hidden keys stay below


def grouped(x: jax.Array) -> jax.Array:
    """Columns [.., 3D] (q, k, v) in the order that the kernel takes: q, k and v of the first 128 channels, and so on.

    Of the weights, so that one block of the product holds all that a program needs, and its gradient comes out whole.
    """
    groups = x.shape[-1] // (3 * LANES)
    return jnp.swapaxes(x.reshape(*x.shape[:-1], 3, groups, LANES), -3, -2).reshape(x.shape)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [B, T, C] + bias [C]. The bias's gradient is a product with ones, summed in float32: next to a kernel XLA has
    nothing to fuse a plain sum with, and that one takes as long as a matrix product."""
    return x + bias


def _bias_gradient(_, gradient):
    ones = jnp.ones(gradient.shape[:2], gradient.dtype)
    found = jax.lax.dot_general(ones, gradient, (((0, 1), (0, 1)), ((), ())), preferred_element_type=jnp.float32)
    return gradient, found.astype(gradient.dtype)


add_bias.defvjp(lambda x, bias: (x + bias, None), _bias_gradient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def kernel_attention(
    qkv: jax.Array, mask: jax.Array, heads: int, causal: bool = False, interpret: bool = False
) -> jax.Array:
    """`attention.plain_attention` of columns in `grouped` order; `interpret` runs it on any backend."""
    return _forward(qkv, mask, heads, causal, interpret)[0]


def _forward(qkv, mask, heads, causal, interpret):
    bias = jnp.where(mask, 0.0, _HIDDEN).astype(jnp.float32)[:, None, :]
    return _split(_attention_call, (qkv, bias), heads, causal, interpret), (qkv, bias)


def _backward(heads, causal, interpret, saved, gradient):
    return _split(_gradient_call, (*saved, gradient), heads, causal, interpret), None


kernel_attention.defvjp(_forward, _backward)


def batch_axes() -> tuple[str, ...]:
    """The axes of the mesh in context that batches are split over."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(a for a in _BATCH_AXES if not mesh.empty and mesh.shape.get(a, 1) > 1)


def _split(call, arrays, *static) -> jax.Array:
    """`call(*arrays, *static)` on each device's own examples: the compiler cannot split a kernel."""
    axes = batch_axes()
    if not axes:
        return call(*arrays, *static)
    spec = PartitionSpec(axes)
    own = jax.shard_map(
        lambda *given: call(*given, *static), in_specs=(spec,) * len(arrays), out_specs=spec, check_vma=False
    )
    return own(*arrays)


def _attention_call(qkv, bias, heads, causal, interpret):
    return _call(_attention, (qkv, bias), LANES, heads, causal, interpret)


def _gradient_call(qkv, bias, gradient, heads, causal, interpret):
    return _call(_gradient, (qkv, bias, gradient), 3 * LANES, heads, causal, interpret)


def _call(kernel, arrays, columns, heads, causal, interpret):
    """Run a kernel for some examples at a time and each group of columns; it gives `columns` for each group."""
    batch, length, width = arrays[0].shape[0], arrays[0].shape[1], arrays[0].shape[2] // 3
    together = max(n for n in range(1, max(1, _ROWS // length) + 1) if batch % n == 0)
    groups = width // LANES

    def block(n):
        return pl.BlockSpec((together, length, n), lambda b, j: (b, 0, j))

    bias = pl.BlockSpec((together, 1, length), lambda b, j: (b, 0, 0))
    return pl.pallas_call(
        functools.partial(kernel, dim=width // heads, causal=causal),
        grid=(batch // together, groups),
        in_specs=[block(3 * LANES), bias, block(LANES)][: len(arrays)],
        out_specs=block(columns),
        out_shape=jax.ShapeDtypeStruct((batch, length, groups * columns), arrays[0].dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=100 * 2**20
        ),
        interpret=interpret,
        name=f"attention{kernel.__name__}",
    )(*arrays)


def _dot(a: jax.Array, b: jax.Array, transposed: bool = False) -> jax.Array:
    """a @ b, or a @ b.T, in float32."""
    contracted = ((1,), (1 if transposed else 0,))
    return jax.lax.dot_general(a, b, (contracted, ((), ())), preferred_element_type=jnp.float32)


def _only(x: jax.Array, head: int, dim: int) -> jax.Array:
    """x [T, 128] with the channels of the other heads zeroed."""
    lane = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    return jnp.where((lane >= head * dim) & (lane < (head + 1) * dim), x, jnp.zeros_like(x))


def _exponentials(q, k, bias, dim, causal) -> tuple[jax.Array, jax.Array]:
    """Of one head (k has only its channels): exp(logits - maximum) float32 [T, T], and 1 / its sums [T, 1]."""
    logits = _dot(q, k, transposed=True) * dim**-0.5 + bias
    if causal:
        row, column = (jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis) for axis in (0, 1))
        logits = jnp.where(column <= row, logits, _HIDDEN)
    e = jnp.exp(logits - jnp.maximum(jnp.max(logits, axis=1, keepdims=True), _EMPTY))
    total = jnp.sum(e, axis=1, keepdims=True)
    return e, jnp.where(total > 0, 1.0 / total, 0.0)


def _parts(ref, i: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q, k and v [T, 128] of an example."""
    return tuple(ref[i, :, n * LANES : (n + 1) * LANES] for n in range(3))


def _attention(qkv_ref, bias_ref, out_ref, *, dim, causal):
    for i in range(qkv_ref.shape[0]):
        q, k, v = _parts(qkv_ref, i)
        out = jnp.zeros(q.shape, jnp.float32)
        for head in range(LANES // dim):
            e, scale = _exponentials(q, _only(k, head, dim), bias_ref[i], dim, causal)
            out += _dot(e.astype(v.dtype), _only(v, head, dim)) * scale
        out_ref[i] = out.astype(out_ref.dtype)


def _gradient(qkv_ref, bias_ref, g_ref, out_ref, *, dim, causal):
    """dk and dv come out transposed, [dim, T] = q.T @ ds: so the large [T, T] never is."""
    for i in range(qkv_ref.shape[0]):
        (q, k, v), g = _parts(qkv_ref, i), g_ref[i]
        q_t, g_t, dq, dk_t, dv_t = q.T, g.T, jnp.zeros(q.shape, jnp.float32), [], []
        for head in range(LANES // dim):
            own, channels = _only(k, head, dim), slice(head * dim, (head + 1) * dim)
            e, scale = _exponentials(q, own, bias_ref[i], dim, causal)
            p = e * scale
            dp = _dot(g, _only(v, head, dim), transposed=True)
            ds = (p * (dp - jnp.sum(p * dp, axis=1, keepdims=True))).astype(q.dtype)
            dq += _dot(ds, own)
            dk_t.append(_dot(q_t[channels], ds))
            dv_t.append(_dot(g_t[channels], p.astype(q.dtype)))
        parts = dq * dim**-0.5, jnp.concatenate(dk_t).T * dim**-0.5, jnp.concatenate(dv_t).T
        for n, part in enumerate(parts):
            out_ref[i, :, n * LANES : (n + 1) * LANES] = part.astype(out_ref.dtype)
