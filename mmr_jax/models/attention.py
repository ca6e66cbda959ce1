"""Multi-head self-attention, and the choice between XLA's and the TPU kernel of `attention_kernel`."""

import jax
import jax.numpy as jnp

from mmr_jax.errors import UserError
from mmr_jax.models.attention_kernel import LANES, LONGEST
from mmr_jax.models.placement import batch_shards, on_tpu

IMPLEMENTATIONS = ("auto", "xla", "kernel")


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, causal: bool = False) -> jax.Array:
    """Scaled dot-product attention over [B, T, H, d] with a key mask bool [B, T].

    The softmax runs in float32. A row whose keys are all masked gives zeros (softmax would give the mean of
    whatever the padding holds), and its gradient is zero, not NaN.
    """
    keep = mask[:, None, None, :]
    if causal:
        keep = keep & jnp.tri(q.shape[1], dtype=bool)
    out = jax.nn.dot_product_attention(q, k, v, mask=jnp.broadcast_to(keep, (q.shape[0], 1, q.shape[1], k.shape[1])))
    return jnp.where(jnp.any(keep, axis=-1)[:, 0, :, None, None], out, 0)


def plain_attention(qkv: jax.Array, mask: jax.Array, heads: int, causal: bool = False) -> jax.Array:
    """Attention within sequences: qkv [B, T, 3D] (q, k, v, heads contiguous), mask bool [B, T] -> [B, T, D]."""
    batch, length, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = jnp.moveaxis(qkv.reshape(batch, length, 3, heads, width // heads), 2, 0)
    return attend(q, k, v, mask, causal).reshape(batch, length, width)


def kernel_fits(length: int, width: int, heads: int, dtype) -> bool:
    """Whether the kernel takes these shapes: bfloat16, heads of 32, 64 or 128 channels, up to 1024 tokens."""
    shaped = width // heads in (32, 64, 128) and width % LANES == 0 and length <= LONGEST
    return shaped and jnp.dtype(dtype) == jnp.bfloat16


def uses_kernel(implementation: str, shape: tuple[int, int, int], heads: int, dtype) -> bool:
    """What `model.attention` means for tokens of `shape` [B, T, D].

    auto is the kernel on TPUs where shapes fit and each device can take its share of the batch: with several devices
    the mesh has to be in context (jax.set_mesh), else it stays with XLA.
    """
    batch, length, width = shape
    fits = kernel_fits(length, width, heads, dtype)
    if implementation == "kernel" and not fits:
        raise UserError(
            f"model.attention='kernel' does not take {heads} heads of {width // heads} {dtype} channels and {length}"
            " tokens: it needs model.dtype='bfloat16', heads of 32, 64 or 128 and at most 1024 tokens; use 'auto'"
        )
    if implementation != "auto":
        return implementation == "kernel"
    mesh = jax.sharding.get_abstract_mesh()
    known = not mesh.empty or jax.device_count() == 1
    return fits and known and batch % batch_shards() == 0 and on_tpu()
