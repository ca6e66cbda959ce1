"""The train state and the compiled step: (state, batches, key) -> (state, metrics), donated, on a mesh."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import FrozenConfigDict

from mmr_jax import tree
from mmr_jax.models.placement import within
from mmr_jax.objectives.base import Objective
from mmr_jax.train.optim import make_optimizer
from mmr_jax.train.sharding import BATCH, state_sharding


class TrainState(NamedTuple):
    """All that a run is: step int32 [], params (nested dict), opt_state (leaves that train), extra (the rest)."""

    step: jax.Array
    params: dict
    opt_state: object
    extra: dict


class Program(NamedTuple):
    """What is compiled for one stage: `start(params, extra)` makes the state, `step` advances it."""

    start: object
    step: object
    shardings: object


def _start(params, extra, objective, optimizer, ema, average) -> TrainState:
    trained, _ = tree.partition(params, objective.trains)
    extra = {"objective": extra} | ({"ema": params} if ema else {}) | ({"average": params} if average[0] else {})
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(trained), extra)


def _step(state, batches, key, mesh, objective, optimizer, ema, average) -> tuple[TrainState, dict]:
    rng = jax.random.fold_in(key, state.step)
    before = state.extra["objective"]
    # the attention kernel asks how the batch is split
    (loss, (metrics, extra)), grads = within(mesh, objective.value_and_grad)(state.params, before, batches, rng)
    trained, frozen = tree.partition(state.params, objective.trains)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    params = tree.merge(optax.apply_updates(trained, updates), frozen)
    extra = {**state.extra, "objective": extra}
    if ema:
        extra["ema"] = jax.tree.map(lambda e, p: ema * e + (1 - ema) * p, state.extra["ema"], params)
    norm = optax.global_norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    new = TrainState(state.step, params, opt_state, extra)
    kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
    kept = kept._replace(step=state.step + 1)
    if average[0]:
        mean = running_mean(kept.extra["average"], kept.params, kept.step, *average)
        kept = kept._replace(extra={**kept.extra, "average": mean})
    return kept, {"loss": loss, "grad_norm": norm, "finite": finite, **metrics}


def running_mean(mean: dict, params: dict, step: jax.Array, every: int, start: int) -> dict:
    """Mean of the parameters after all steps s (counted from 1) with s >= start and s % every == 0, up to `step`.

    Before the first of them it is the parameters themselves.
    """
    count = jnp.maximum(step // every - (max(start, 1) - 1) // every, 0)
    counts_now = (step >= start) & (step % every == 0)

    def leaf(m, p):
        moved = jnp.where(counts_now, m + (p - m) / jnp.maximum(count, 1).astype(m.dtype), m)
        return jnp.where(jnp.where(counts_now, count == 1, count == 0), p, moved)

    return jax.tree.map(leaf, mean, params)


@functools.lru_cache(maxsize=128)
def make_program(
    objective: Objective,
    optim: FrozenConfigDict,
    steps: int,
    ema: float,
    mesh: Mesh,
    average: tuple[int, int] = (0, 0),
) -> Program:
    """Compile-ready functions of a stage. Equal arguments give the same program: seeds share one compilation.

    `extra` of the state has "ema" (ema > 0) or "average", the `running_mean` with `average` = (every, start).
    A step whose loss or gradient is not finite keeps parameters, moments and extra as they were and only counts on
    (the running mean counts the parameters that are kept).
    """
    optimizer = make_optimizer(optim, steps)
    fixed = {"objective": objective, "optimizer": optimizer, "ema": ema, "average": average}
    start = functools.partial(_start, **fixed)
    shapes = jax.eval_shape(lambda key: start(*objective.init(key)), jax.random.key(0))
    shardings = state_sharding(shapes, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    step = jax.jit(
        functools.partial(_step, mesh=mesh, **fixed),
        in_shardings=(shardings, NamedSharding(mesh, BATCH), whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
    return Program(jax.jit(start, out_shardings=shardings), step, shardings)
