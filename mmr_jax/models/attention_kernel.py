"""A kernel for self-attention on TPUs that keeps the logits on the chip.

XLA writes the [T, T] logits of every head to memory and reads them back several times; at the 708 tokens in 16 heads
of a CAV-MAE decoder that is most of the training step. The kernel holds the whole sequence of 128 channels (one or
more heads) in the chip's own memory: nothing but q, k, v and the output moves. Its backward pass computes the softmax
again, so it keeps nothing but its output. Heads narrower than 128 channels are taken apart by zeroing the channels of
the others, which costs nothing where the matrix unit is 128 wide anyway, and spares every transposition between
layouts.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from mmr_jax.models.placement import batch_axes

LANES = 128
KERNEL_OUTPUT = "attention kernel"  # its name for the policies of jax.checkpoint
LONGEST = 1024  # tokens whose logits, probabilities and their gradients fit the memory of a chip
_ROWS = 512  # tokens of several short examples that one program of the kernel takes together
_HIDDEN, _EMPTY = -1e30, -1e20  # bias of a hidden key; the least maximum of a row, which only hidden keys stay below


def grouped(x: jax.Array) -> jax.Array:
    """Columns [.., 3D] (q, k, v) in the order that the kernel takes: q, k and v of the first 128 channels, and so on.

    Of the weights, so that one block of the product holds all that a program needs, and its gradient comes out whole.
    """
    groups = x.shape[-1] // (3 * LANES)
    return jnp.swapaxes(x.reshape(*x.shape[:-1], 3, groups, LANES), -3, -2).reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def kernel_attention(
    qkv: jax.Array, bias: jax.Array, mask: jax.Array, heads: int, causal: bool = False, interpret: bool = False
) -> jax.Array:
    """`attention.plain_attention` of qkv [B, T, 3D] + bias [3D], both in `grouped` order; `interpret` runs it anywhere.

    The bias is an argument for its gradient's sake, which the kernel sums over the tokens in float32: next to a kernel
    XLA has nothing to fuse a sum with, and alone that takes as long as three matrix products.
    """
    return _forward(qkv, bias, mask, heads, causal, interpret)[0]


def _forward(qkv, bias, mask, heads, causal, interpret):
    qkv = qkv + bias.astype(qkv.dtype)
    hidden = jnp.where(mask, 0.0, _HIDDEN).astype(jnp.float32)[:, None, :]
    out = checkpoint_name(_split(_attention_call, (qkv, hidden), heads, causal, interpret), KERNEL_OUTPUT)
    return out, (qkv, hidden, out, bias)


def _backward(heads, causal, interpret, saved, gradient):
    *saved, bias = saved
    found, sums = _split(_gradient_call, (*saved, gradient), heads, causal, interpret)
    return found, jnp.sum(sums, axis=(0, 1)).astype(bias.dtype), None


kernel_attention.defvjp(_forward, _backward)


def _split(call, arrays, *static):
    """`call(*arrays, *static)` on each device's own examples: the compiler cannot split a kernel."""
    axes = batch_axes()
    if not axes:
        return call(*arrays, *static)
    spec = PartitionSpec(axes)
    own = jax.shard_map(
        lambda *given: call(*given, *static), in_specs=(spec,) * len(arrays), out_specs=spec, check_vma=False
    )
    return own(*arrays)


def _attention_call(qkv, hidden, heads, causal, interpret):
    out = jax.ShapeDtypeStruct((*qkv.shape[:2], qkv.shape[2] // 3), qkv.dtype)
    return _call(_attention, (qkv, hidden), out, heads, causal, interpret)


def _gradient_call(qkv, hidden, made, gradient, heads, causal, interpret):
    """The gradient of qkv, and its sums over the tokens of each program float32 [programs, 1, 3D]."""
    sums = jax.ShapeDtypeStruct((_programs(*qkv.shape[:2]), 1, qkv.shape[2]), jnp.float32)
    out = (jax.ShapeDtypeStruct(qkv.shape, qkv.dtype), sums)
    return _call(_gradient, (qkv, hidden, made, gradient), out, heads, causal, interpret)


def _programs(batch: int, length: int) -> int:
    """Into how many programs the examples go: one takes as many as `_ROWS` tokens hold, at least one."""
    return batch // max(n for n in range(1, max(1, _ROWS // length) + 1) if batch % n == 0)


def _call(kernel, arrays, out, heads, causal, interpret):
    """Run a kernel for some examples at a time and each group of columns; `out` says what comes out."""
    qkv, hidden, *others = arrays
    programs, width = _programs(*qkv.shape[:2]), qkv.shape[2] // 3
    groups = width // LANES

    def block(x, columns=groups):
        """A program's share of the batch, and of the columns if they go by groups."""
        size = (x.shape[0] // programs, x.shape[1], x.shape[2] // columns)
        return pl.BlockSpec(size, lambda b, j: (b, 0, j if columns == groups else 0))

    return pl.pallas_call(
        functools.partial(kernel, dim=width // heads, causal=causal),
        grid=(programs, groups),
        in_specs=[block(qkv), block(hidden, 1), *map(block, others)],
        out_specs=jax.tree.map(block, out),
        out_shape=out,
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


def _exponentials(q, k, hidden, dim, causal) -> tuple[jax.Array, jax.Array]:
    """Of one head (k has only its channels): exp(logits - maximum) float32 [T, T], and 1 / its sums [T, 1]."""
    logits = _dot(q, k, transposed=True) * dim**-0.5 + hidden
    if causal:
        row, column = (jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis) for axis in (0, 1))
        logits = jnp.where(column <= row, logits, _HIDDEN)
    e = jnp.exp(logits - jnp.maximum(jnp.max(logits, axis=1, keepdims=True), _EMPTY))
    total = jnp.sum(e, axis=1, keepdims=True)
    return e, jnp.where(total > 0, 1.0 / total, 0.0)


def _parts(ref, i: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q, k and v [T, 128] of an example."""
    return tuple(ref[i, :, n * LANES : (n + 1) * LANES] for n in range(3))


def _attention(qkv_ref, hidden_ref, out_ref, *, dim, causal):
    for i in range(qkv_ref.shape[0]):
        q, k, v = _parts(qkv_ref, i)
        out = jnp.zeros(q.shape, jnp.float32)
        for head in range(LANES // dim):
            e, scale = _exponentials(q, _only(k, head, dim), hidden_ref[i], dim, causal)
            out += _dot(e.astype(v.dtype), _only(v, head, dim)) * scale
        out_ref[i] = out.astype(out_ref.dtype)


def _gradient(qkv_ref, hidden_ref, made_ref, g_ref, out_ref, sums_ref, *, dim, causal):
    """dq, dk and dv come out transposed, [dim, T]: few rows pass the matrix unit, and the large [T, T] never is turned.

    sum(p * dp) over the keys is the product of the output (`made_ref`) and its gradient, summed over the channels.
    """
    sums = jnp.zeros(sums_ref.shape[1:], jnp.float32)
    for i in range(qkv_ref.shape[0]):
        (q, k, v), g = _parts(qkv_ref, i), g_ref[i]
        along = g.astype(jnp.float32) * made_ref[i].astype(jnp.float32)
        q_t, k_t, g_t, dq_t, dk_t, dv_t = q.T, k.T, g.T, [], [], []
        for head in range(LANES // dim):
            own, channels = _only(k, head, dim), slice(head * dim, (head + 1) * dim)
            e, scale = _exponentials(q, own, hidden_ref[i], dim, causal)
            p = e * scale
            dp = _dot(g, _only(v, head, dim), transposed=True)
            ds = (p * (dp - jnp.sum(_only(along, head, dim), axis=1, keepdims=True))).astype(q.dtype)
            dq_t.append(_dot(k_t[channels], ds, transposed=True))
            dk_t.append(_dot(q_t[channels], ds))
            dv_t.append(_dot(g_t[channels], p.astype(q.dtype)))
        parts = jnp.concatenate(dq_t).T * dim**-0.5, jnp.concatenate(dk_t).T * dim**-0.5, jnp.concatenate(dv_t).T
        for n, part in enumerate(parts):
            out_ref[i, :, n * LANES : (n + 1) * LANES] = part.astype(out_ref.dtype)
        sums += jnp.concatenate([jnp.sum(part, axis=0, keepdims=True) for part in parts], axis=1)
    sums_ref[0] = sums
