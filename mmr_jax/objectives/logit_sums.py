"""Sums over the rows and columns of the logits between modalities: all of them that a contrastive loss has to know.

Three ways to the same sums. `plain` builds the whole [B, B] logits of every pair of modalities. `chunked` builds all
rows by `CHUNK` columns at a time. `ring` leaves the rows where they are and hands the columns round the devices that
share the batch: each holds its own rows by the columns that visit it, for all pairs in one rotation, and after the
last hop all columns are home with what they gathered. The latter two compute the logits again for the gradient, so
nothing of that size is kept: going backward, the columns gather their gradients on another rotation.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mmr_jax.models.placement import batch_axes, batch_shards

CHUNK = 512  # columns
ROWS, COLUMNS = SIDES = (2, 1)  # the axis of logits [P, rows, columns] that the sum of each row, each column runs over
_HIDDEN = -1e9


class Reduction(NamedTuple):
    """A sum of logits: `over` an axis, of two parts (`merge`), of nothing (`empty`); `slope` is its derivative by each
    logit, given the logits and the sum."""

    over: Callable
    merge: Callable
    empty: float
    slope: Callable


LOGSUMEXP = Reduction(jax.nn.logsumexp, jnp.logaddexp, -jnp.inf, lambda logits, total: jnp.exp(logits - total))
SOFTPLUS = Reduction(
    lambda logits, axis: jnp.sum(jax.nn.softplus(logits), axis), jnp.add, 0.0, lambda logits, _: jax.nn.sigmoid(logits)
)


def logit_sums(contrast: str, reduction: Reduction, sides: tuple[int, ...], queries, bias, keys, mask) -> tuple:
    """Sums (of the rows, of the columns) float32 [P, B] over the P pairs i < j of M modalities; None if not in `sides`.

    `contrast`: plain, chunked or ring. The logits of a pair are queries[i] @ keys[j - 1].T + bias among the examples
    that it has; the others count as hidden on both sides. queries float32 [M - 1, B, D] of all modalities but the
    last, keys [M - 1, B, D] of all but the first, bias [1, B], mask bool [P, B]. The ring runs over the devices that
    batches are split over in the mesh in context; without one it is one block.
    """
    arrays = (queries, bias, keys, mask)
    if contrast == "plain":
        return _sums(reduction, sides, _logits(queries, bias, keys, mask, mask))
    size = mask.shape[1]
    more = -size % (min(CHUNK, size) if contrast == "chunked" else batch_shards())
    padded = (jnp.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2)) for x in arrays)
    return jax.tree.map(lambda x: x[:, :size], _by_blocks(contrast, reduction, sides, *padded))


def pair_logits(queries: jax.Array, bias: jax.Array, keys: jax.Array) -> jax.Array:
    """The logits of what belongs together, the diagonals of those above, float32 [P, B]."""
    return jnp.sum(jnp.multiply(*_pairs(queries, keys)), axis=-1) + bias


def _pairs(queries, keys) -> tuple[jax.Array, jax.Array]:
    """The queries and the keys [P, B, D] of each pair."""
    pairs = list(itertools.combinations(range(len(keys) + 1), 2))
    return jnp.stack([queries[i] for i, _ in pairs]), jnp.stack([keys[j - 1] for _, j in pairs])


def _logits(queries, bias, keys, mask, key_mask) -> jax.Array:
    """float32 [P, rows, columns]."""
    logits = jnp.einsum("prd,pcd->prc", *_pairs(queries, keys), precision=jax.lax.Precision.HIGHEST)
    return jnp.where(mask[:, :, None] & key_mask[:, None], logits + bias[..., None], _HIDDEN)


def _sums(reduction, sides, logits) -> tuple:
    return tuple(reduction.over(logits, side) if side in sides else None for side in SIDES)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _by_blocks(contrast, reduction, sides, queries, bias, keys, mask):
    return _forward(contrast, reduction, sides, queries, bias, keys, mask)[0]


def _forward(contrast, reduction, sides, *arrays):
    def own(walk, queries, bias, keys, mask):
        merge = functools.partial(jax.tree.map, reduction.merge)

        def body(rows, visitor):
            keys, key_mask, columns = visitor
            found = _sums(reduction, sides, _logits(queries, bias, keys, mask, key_mask))
            return merge(rows, found[0]), (keys, key_mask, merge(columns, found[1]))

        empty = jnp.full(mask.shape, reduction.empty, jnp.float32)
        rows, columns = (empty if side in sides else None for side in SIDES)
        rows, (_, _, columns) = walk(body, rows, (keys, mask, columns))
        return rows, columns

    sums = _spread(contrast, own, *arrays)
    return sums, (*arrays, sums)


def _backward(contrast, reduction, sides, saved, gradients):
    def own(walk, queries, bias, keys, mask, sums, gradients):
        (rows, columns), (d_rows, d_columns) = sums, gradients

        def body(grads, visitor):
            keys, key_mask, columns, d_columns, d_keys = visitor
            logits, pull = jax.vjp(lambda *given: _logits(*given, mask, key_mask), queries, bias, keys)
            parts = zip(SIDES, (rows, columns), (d_rows, d_columns), strict=True)
            wide = [(jnp.expand_dims(t, side), jnp.expand_dims(g, side)) for side, t, g in parts if side in sides]
            *found, more = pull(sum(reduction.slope(logits, total) * g for total, g in wide))
            grads = jax.tree.map(jnp.add, grads, tuple(found))
            return grads, (keys, key_mask, columns, d_columns, d_keys + more)

        start = (jnp.zeros_like(queries), jnp.zeros_like(bias))
        (d_queries, d_bias), visitor = walk(body, start, (keys, mask, columns, d_columns, jnp.zeros_like(keys)))
        return d_queries, d_bias, visitor[-1]

    return (*_spread(contrast, own, *saved, gradients), None)


_by_blocks.defvjp(_forward, _backward)


def _spread(contrast, own, *arrays):
    """`own(walk, *arrays)`, in the ring on each device's own examples (axis 1 of all arrays).

    walk(body, own, visitor) shows all visitors to `body(own, visitor)`, which returns both with what they gathered.
    """
    axes = batch_axes()
    if contrast == "chunked":
        return own(_chunks, *arrays)
    if not axes:
        return own(lambda body, *carried: body(*carried), *arrays)
    spec = PartitionSpec(None, axes)
    run = functools.partial(own, functools.partial(_ring, axes))
    return jax.shard_map(run, in_specs=spec, out_specs=spec, check_vma=False)(*arrays)


def _ring(axes, body, own, visitor):
    size = jax.lax.axis_size(axes)
    hops = [(device, (device + 1) % size) for device in range(size)]

    def hop(carried, _):
        own, visitor = body(*carried)
        return (own, jax.lax.ppermute(visitor, axes, hops)), None

    return jax.lax.scan(hop, (own, visitor), None, length=size)[0]


def _chunks(body, own, visitor):
    """Every chunk has examples from all over the batch, hence, where that is split, its share of every device."""
    size = jax.tree.leaves(visitor)[0].shape[1]
    chunk = min(CHUNK, size)

    def cut(x):
        return jnp.moveaxis(x.reshape(x.shape[0], chunk, size // chunk, *x.shape[2:]), 2, 0)

    own, visitor = jax.lax.scan(body, own, jax.tree.map(cut, visitor))
    return own, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2).reshape(x.shape[1], size, *x.shape[3:]), visitor)
