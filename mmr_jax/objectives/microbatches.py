"""Large batches in little memory: the examples go through the model in parts, and all meet again in the loss.

Gradient accumulation that is exact for every objective, also for those that couple the batch (Gao et al. 2021, "Scaling
deep contrastive learning batch size under memory limited setup"): what the loss needs of each example is kept, all else
is computed again in the backward pass, part by part. It costs one more forward pass.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def in_microbatches(fn: Callable, count: int, rng: jax.Array | None, *batch):
    """`fn(rng, *batch)` of pytrees [B, ...] -> pytree [B, ...], in `count` parts one after the other.

    `fn` treats each example alone; `rng` is None where it draws nothing. A part takes every `count`-th example, so on a
    mesh no example moves. What `fn` draws at random differs from part to part, and with `count`.
    """
    if count == 1:
        return fn(rng, *batch)
    parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)

    @jax.checkpoint
    def one(number, part):
        return fn(rng if rng is None else jax.random.fold_in(rng, number), *part)

    out = jax.lax.map(lambda given: one(*given), (jnp.arange(count), parts))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), out)
