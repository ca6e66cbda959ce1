"""Pre-LN transformer blocks, stacked along a leading axis and scanned."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmr_jax.models.attention import plain_attention, uses_kernel
from mmr_jax.models.attention_kernel import KERNEL_OUTPUT, grouped, kernel_attention
from mmr_jax.models.placement import in_place


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU by erf. jax.nn.gelu takes erfc, whose expansion doubles a small model's step time on CPUs."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * float(np.sqrt(0.5))))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}


# What the backward pass of a block recomputes: nothing; all but products with weights and the attention kernel; or all.
REMATS = {
    "none": None,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(KERNEL_OUTPUT),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclass(frozen=True)
class BlockConfig:
    """Shape and conventions of one transformer block. `remat` is one of `REMATS`."""

    width: int
    heads: int
    mlp_dim: int
    activation: str = "gelu"
    norm_eps: float = 1e-6
    causal: bool = False
    dtype: str = "float32"
    attention: str = "auto"
    remat: str = "none"


class Attention(nnx.Module):
    """Multi-head self-attention; q, k and v come from one matrix, in this order, heads contiguous."""

    def __init__(self, cfg: BlockConfig, rngs: nnx.Rngs):
        init = nnx.initializers.xavier_uniform()
        dtype = jnp.dtype(cfg.dtype)
        self.qkv = nnx.Linear(cfg.width, 3 * cfg.width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(cfg.width, cfg.width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.heads, self.causal, self.implementation = cfg.heads, cfg.causal, cfg.attention

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """tokens [B, T, D], mask bool [B, T] -> [B, T, D]."""
        if uses_kernel(self.implementation, x.shape, self.heads, self.qkv.dtype):
            kernel, bias = (grouped(p[...]) for p in (self.qkv.kernel, self.qkv.bias))
            qkv = x @ kernel.astype(self.qkv.dtype)
            return self.out(kernel_attention(qkv, bias, mask, self.heads, self.causal))
        return self.out(plain_attention(self.qkv(x), mask, self.heads, self.causal))


class Mlp(nnx.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, cfg: BlockConfig, rngs: nnx.Rngs):
        init = nnx.initializers.xavier_uniform()
        dtype = jnp.dtype(cfg.dtype)
        self.up = nnx.Linear(cfg.width, cfg.mlp_dim, kernel_init=init, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(cfg.mlp_dim, cfg.width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.activation = cfg.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


def layer_norm(cfg: BlockConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over the last axis; statistics in float32, output in the compute dtype."""
    return nnx.LayerNorm(cfg.width, epsilon=cfg.norm_eps, dtype=jnp.dtype(cfg.dtype), rngs=rngs)


class Norms(nnx.Module):
    """The two layer norms of a block; a shared block has one pair per stream."""

    def __init__(self, cfg: BlockConfig, rngs: nnx.Rngs):
        self.attention = layer_norm(cfg, rngs)
        self.mlp = layer_norm(cfg, rngs)


class Block(nnx.Module):
    """Pre-LN block: x + attention(norm(x)), then x + mlp(norm(x)); `stream` picks the pair of norms."""

    def __init__(self, cfg: BlockConfig, streams: Sequence[str], rngs: nnx.Rngs):
        self.norms = nnx.Dict({stream: Norms(cfg, rngs) for stream in streams})
        self.attention = Attention(cfg, rngs)
        self.mlp = Mlp(cfg, rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, stream: str) -> jax.Array:
        norms = self.norms[stream]
        x = in_place(x + self.attention(norms.attention(x), mask))
        return in_place(x + self.mlp(norms.mlp(x)))


class Stack(nnx.Module):
    """`depth` blocks whose parameters share a leading axis: one compiled body, or unrolled by option.

    An empty stack has no parameters and returns its input.
    """

    def __init__(self, cfg: BlockConfig, depth: int, streams: Sequence[str], scan: bool, rngs: nnx.Rngs):
        blocks = [nnx.split(Block(cfg, streams, rngs)) for _ in range(depth)]
        self.depth, self.scan, self.remat = depth, scan, cfg.remat
        if depth:
            self.layers = nnx.merge(blocks[0][0], jax.tree.map(lambda *x: jnp.stack(x), *[s for _, s in blocks]))

    def __call__(self, x: jax.Array, mask: jax.Array, stream: str) -> jax.Array:
        """tokens [B, T, D], mask bool [B, T] -> tokens [B, T, D]."""
        if not self.depth:
            return x
        x = in_place(x)
        graphdef, layers = nnx.split(self.layers)

        def body(x, layer):
            return nnx.merge(graphdef, layer)(x, mask, stream), None

        if self.remat != "none":  # in a loop nothing can be merged with the first computation anyway
            body = jax.checkpoint(body, policy=REMATS[self.remat], prevent_cse=not self.scan)
        return jax.lax.scan(body, x, layers, unroll=1 if self.scan else self.depth)[0]
