"""The one training loop: any objective, resumable at any step, bit for bit."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from mmr_jax.data.pipeline import train_iterator
from mmr_jax.data.source import Source
from mmr_jax.errors import Diverged
from mmr_jax.objectives.base import Objective
from mmr_jax.seeds import fold_seed
from mmr_jax.train import interrupt, sharding
from mmr_jax.train.checkpoint import Checkpoints
from mmr_jax.train.log import MetricLog, StageProgress
from mmr_jax.train.step import Program, TrainState, make_program

MAX_BAD_STEPS = 5


@dataclass
class Job:
    """One stage of training: from `params` (and `extra`) over `steps` steps of `objective`.

    `recipe` is a block of the config: optim, steps, batch_size, ema, average_every, average_from, log_every,
    checkpoint_every, validate_every.
    `validate(params) -> float` is asked every `validate_every` steps (never when 0) and the best parameters are kept;
    without it the last ones are. `name` and `seed` are folded into everything random; jobs of one `data_name` (default:
    the name) see the same batches.
    """

    name: str
    seed: int
    directory: Path
    objective: Objective
    recipe: FrozenConfigDict
    sources: Mapping[str, Source]
    params: dict
    extra: dict = field(default_factory=dict)
    validate: Callable[[dict], float] | None = None
    data_name: str = ""


@dataclass
class Best:
    """The parameters with the highest validation score so far (the earliest of equals)."""

    params: dict
    score: float = -np.inf
    step: int = 0

    def offer(self, params: dict, score: float, step: int) -> None:
        score = float(np.float32(score))  # as a checkpoint keeps it: a resumed run must compare the same numbers
        if score > self.score:  # copies: the step donates its buffers
            self.params, self.score, self.step = jax.tree.map(jnp.copy, params), score, step


@dataclass
class Outcome:
    """What a stage leaves: parameters (host arrays), its best validation score and what it cost."""

    params: dict
    best_step: int
    best_score: float | None
    resumed_from: int
    seconds: float


def fit(job: Job, mesh: Mesh) -> Outcome:
    """Run a job to its end, or from its newest checkpoint to its end."""
    begun = time.monotonic()
    recipe = job.recipe
    sharding.check_batch(recipe.batch_size, mesh)
    average = (recipe.average_every, recipe.average_from)
    program = make_program(job.objective, recipe.optim, recipe.steps, recipe.ema, mesh, average)
    checkpoints = Checkpoints(job.directory / "checkpoints")
    state, best, start = _begin(job, program, checkpoints)
    if start:
        print(f"{job.name}: resumes from step {start} of {recipe.steps}")
    log = MetricLog(job.directory, start)
    progress = StageProgress(job.name, recipe.steps, start, recipe.batch_size)
    try:
        state = _run(job, program, mesh, state, best, start, checkpoints, log, progress)
    finally:
        log.close()
        progress.close()
        checkpoints.close()
    chosen = job.validate and recipe.validate_every
    kept = best.params if chosen else _averaged(state)
    outcome = Outcome(jax.device_get(kept), recipe.steps, None, start, time.monotonic() - begun)
    if chosen:
        outcome.best_step, outcome.best_score = best.step, best.score
    return outcome


def _begin(job: Job, program: Program, checkpoints: Checkpoints) -> tuple[TrainState, Best, int]:
    """The first state, or that of the newest checkpoint."""
    state = program.start(job.params, job.extra)
    best = Best(jax.tree.map(jnp.copy, state.params))
    restored = checkpoints.restore(_payload(state, best))
    if restored is None:
        return state, best, 0
    step, payload = restored
    kept = payload["best"]
    return TrainState(**payload["state"]), Best(kept["params"], float(kept["score"]), int(kept["step"])), step


def _payload(state: TrainState, best: Best) -> dict:
    kept = {"params": best.params, "score": jnp.float32(best.score), "step": jnp.int32(best.step)}
    return {"state": state._asdict(), "best": kept}


def _averaged(state: TrainState) -> dict:
    """The weights that are validated and kept: a mean of those so far where the recipe asks for one."""
    return state.extra.get("average", state.extra.get("ema", state.params))


def _run(job, program, mesh, state, best, start, checkpoints, log, progress) -> TrainState:
    """Steps start .. recipe.steps. The metrics of a step are read after the next one is under way."""
    recipe, pending, bad = job.recipe, None, 0
    key = jax.random.key(fold_seed(job.seed, job.name))
    batches = _batches(job, start)
    for step in range(start, recipe.steps):
        waiting = time.monotonic()
        batch = {name: sharding.put_batch(next(source), mesh) for name, source in batches.items()}
        progress.waited += time.monotonic() - waiting
        state, metrics = program.step(state, batch, key)
        if pending is not None:
            bad = _read(job, pending, bad, log, progress)
        pending = (step + 1, metrics)
        done = step + 1
        if job.validate and recipe.validate_every and (done % recipe.validate_every == 0 or done == recipe.steps):
            best.offer(_averaged(state), job.validate(_averaged(state)), done)
        if interrupt.FLAG.raised or (recipe.checkpoint_every and done % recipe.checkpoint_every == 0):
            bad, pending = _read(job, pending, bad, log, progress), None
            checkpoints.save(done, _payload(state, best))
            interrupt.check(f"{job.name}, step {done}, which is saved")
    if pending is not None:
        _read(job, pending, bad, log, progress)
    return state


def _batches(job: Job, start: int) -> dict[str, Iterator]:
    """An iterator per source; each host loads its own slice of every global batch."""
    host = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    return {
        name: train_iterator(
            job.sources[name],
            job.recipe.batch_size,
            fold_seed(job.seed, job.data_name or job.name, name),
            start,
            job.recipe.steps,
            **host,
        )
        for name in job.objective.sources
    }


def _read(job: Job, pending: tuple[int, dict], bad: int, log: MetricLog, progress: StageProgress) -> int:
    """Fetch a step's metrics, log them, and count the steps in a row that were not finite."""
    step, metrics = pending[0], jax.device_get(pending[1])
    bad = 0 if metrics.pop("finite") else bad + 1
    if step % job.recipe.log_every == 0 or step == job.recipe.steps or bad:
        log.write(step, {**metrics, "skipped": bool(bad), **_unreadable(job)})
    progress.update(step, float(metrics["loss"]))
    if bad >= MAX_BAD_STEPS:
        raise Diverged(
            f"{job.name}: loss or gradient is not finite in {bad} steps in a row, the last is step {step}; "
            f"lower the learning rate or look at the data of these steps (metrics: {log.path})"
        )
    return bad


def _unreadable(job: Job) -> dict[str, int]:
    """How many examples could not be read up to now, if there are any."""
    tallies = {id(t): t for s in job.sources.values() if (t := getattr(s, "tally", None))}
    lost = sum(t.lost for t in tallies.values())
    return {"unreadable": lost} if lost else {}
