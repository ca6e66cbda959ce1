"""The one training loop: any objective, resumable at any step, bit for bit."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import FrozenConfigDict
from rich.console import Console

from mmr_jax.data.pipeline import train_iterator
from mmr_jax.data.source import Source
from mmr_jax.data.unreadable import Tally
from mmr_jax.errors import Diverged, Interrupted
from mmr_jax.objectives.base import Objective
from mmr_jax.seeds import fold_seed
from mmr_jax.train import hosts, interrupt, sharding
from mmr_jax.train.checkpoint import Checkpoints
from mmr_jax.train.ledger import Ledger
from mmr_jax.train.log import METRICS, MetricLog, StageProgress
from mmr_jax.train.speed import Trace, share_of_peak
from mmr_jax.train.step import Program, TrainState, make_program

MAX_BAD_STEPS = 5


@dataclass
class Job:
    """One stage of training: from `params` (and `extra`) over `steps` steps of `objective`.

    `recipe` is a block of the config: optim, steps, batch_size, ema, average_every, average_from, log_every,
    checkpoint_every, keep_last, keep_every, validate_every.
    `validate(params) -> float` is asked every `validate_every` steps (never when 0) and the best parameters are kept;
    without it the last ones are. `name` and `seed` are folded into everything random; jobs of one `data_name` (default:
    the name) see the same batches. Of the steps `profile`, first and last, a trace is written.
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
    profile: tuple[int, int] | None = None


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
    """What a stage leaves: parameters (host arrays), its best validation score and what this session of it cost."""

    params: dict
    best_step: int
    best_score: float | None
    resumed_from: int
    seconds: float


@dataclass
class _Position:
    """Where a run stands: its state, the best so far (None where nothing is chosen), steps done, bad ones in a row.

    `due`: the validation of the last step is still to come; a signal came in it.
    """

    state: TrainState
    best: Best | None
    step: int = 0
    bad: int = 0
    due: bool = False

    def payload(self, whole: NamedSharding) -> dict:
        """The tree that a checkpoint holds; its scalars are on every device."""

        def scalar(value, dtype):
            return sharding.replicated(np.asarray(value, dtype), whole.mesh)

        tree = {"state": self.state._asdict(), "bad": scalar(self.bad, np.int32), "due": scalar(self.due, np.int32)}
        if self.best:
            kept = (scalar(self.best.score, np.float32), scalar(self.best.step, np.int32))
            tree["best"] = {"params": self.best.params, "score": kept[0], "step": kept[1]}
        return tree

    @classmethod
    def of(cls, step: int, payload: dict):
        """The inverse of `payload`."""
        kept = payload.get("best")
        best = kept and Best(kept["params"], float(kept["score"]), int(kept["step"]))
        return cls(TrainState(**payload["state"]), best, step, int(payload["bad"]), bool(payload["due"]))


def fit(job: Job, mesh: Mesh) -> Outcome:
    """Run a job to its end, or from its newest intact checkpoint to its end."""
    begun = time.monotonic()
    recipe = job.recipe
    sharding.check_batch(recipe.batch_size, mesh, recipe.get("microbatches", 1))
    average = (recipe.average_every, recipe.average_from)
    program = make_program(job.objective, recipe.optim, recipe.steps, recipe.ema, mesh, average)
    directory = job.directory / "checkpoints"
    with Ledger(job.directory) as ledger, Checkpoints(directory, recipe.keep_last, recipe.keep_every) as checkpoints:
        position = _begin(job, program, checkpoints, ledger)
        start = position.step
        if start and hosts.first():
            print(f"{job.name}: resumes from step {start} of {recipe.steps}")
        _run(job, program, mesh, position, checkpoints, ledger)
        with ledger.spends("save"):
            checkpoints.wait()
        kept = position.best.params if position.best else _averaged(position.state)
    outcome = Outcome(hosts.fetch(kept), recipe.steps, None, start, time.monotonic() - begun)
    if position.best:
        outcome.best_step, outcome.best_score = position.best.step, position.best.score
    return outcome


def _begin(job: Job, program: Program, checkpoints: Checkpoints, ledger: Ledger) -> _Position:
    """The first position, or that of the newest checkpoint."""
    with ledger.spends("compile"):
        state = program.start(job.params, job.extra)
        chosen = job.validate and job.recipe.validate_every
        first = _Position(state, Best(jax.tree.map(jnp.copy, state.params)) if chosen else None)
    with ledger.spends("restore"):
        restored = checkpoints.restore(first.payload(program.shardings.step))
    ledger.resumed(restored[0] if restored else 0)
    if not restored:
        return first
    _tally(job).begin(*ledger.unreadable(restored[0]))
    return _Position.of(*restored)


def _averaged(state: TrainState) -> dict:
    """The weights that are validated and kept: a mean of those so far where the recipe asks for one."""
    return state.extra.get("average", state.extra.get("ema", state.params))


def _run(job, program, mesh, position, checkpoints, ledger) -> None:
    """Steps to the end. A signal may end the process without a word before the first step, and not after it."""
    log = MetricLog(job.directory, position.step) if hosts.first() else None
    console = Console(quiet=not hosts.first())
    progress = StageProgress(job.name, job.recipe.steps, position.step, job.recipe.batch_size, console)
    trace = Trace(job.directory, job.profile if hosts.first() else None)
    loop = _Loop(job, program, mesh, position, checkpoints, ledger, log, progress, trace)
    try:
        loop.run()
    finally:
        interrupt.FLAG.holding = False
        loop.trace.close()
        if log:
            log.close()
        progress.close()


@dataclass
class _Loop:
    """The steps of a job. The metrics of a step are read after the next one is under way."""

    job: Job
    program: Program
    mesh: Mesh
    at: _Position
    checkpoints: Checkpoints
    ledger: Ledger
    log: MetricLog | None  # the first host's
    progress: StageProgress
    trace: Trace
    pending: tuple[int, dict] | None = None

    def run(self) -> None:
        recipe, every = self.job.recipe, self.job.recipe.validate_every
        if self.at.due:
            self._validate()
        key = jax.random.key(fold_seed(self.job.seed, self.job.name))
        batches, heard = _batches(self.job, self.at.step, self.mesh), hosts.Poll(self.mesh)
        while self.at.step < recipe.steps:
            self._step(batches, key)
            step = self.at.step
            if self.at.best and (step % every == 0 or step == recipe.steps):
                self._validate()
            if heard.ask(interrupt.FLAG.raised):
                self._stop()
            if recipe.checkpoint_every and step % recipe.checkpoint_every == 0:
                self._save()
        self._read()

    def _step(self, batches: dict[str, Iterator], key: jax.Array) -> None:
        waiting = time.monotonic()
        with self.ledger.spends("data"):
            batch = {name: sharding.put_batch(next(source), self.mesh) for name, source in batches.items()}
        self.progress.waited += time.monotonic() - waiting
        if not interrupt.FLAG.holding:
            self.progress.share = share_of_peak(self.program.step, self.at.state, batch, key)
        self.trace.before(self.at.step + 1)
        with self.ledger.spends("step" if interrupt.FLAG.holding else "compile"):
            state, metrics = self.program.step(self.at.state, batch, key)
        interrupt.FLAG.holding = True
        self.at.state, self.at.step = state, self.at.step + 1
        self._read()
        lost = _tally(self.job).lost
        self.pending = (self.at.step, {**metrics, **({"unreadable": lost} if lost else {})})
        self.trace.after(self.at.step, metrics)

    def _validate(self) -> None:
        """Offer the weights of this step; a signal within saves the step with its validation still to come."""
        weights, counts = _averaged(self.at.state), _tally(self.job).counts
        self.at.due = True
        try:
            with self.ledger.spends("validate"):
                score = self.job.validate(weights)
        except Interrupted:
            _tally(self.job).begin(*counts)
            self._stop()
            raise
        self.at.due = False
        self.at.best.offer(weights, score, self.at.step)

    def _save(self) -> None:
        self._read()
        with self.ledger.spends("save"):
            self.checkpoints.save(self.at.step, self.at.payload(self.program.shardings.step))
        self.ledger.saved(self.at.step, _tally(self.job).counts)

    def _stop(self) -> None:
        """After a signal: save, wait until it is on disk, and raise Interrupted."""
        if interrupt.FLAG.holding:  # else this step is the one that was restored
            self._save()
            self.checkpoints.wait()
        hosts.check_signals(f"{self.job.name}, step {self.at.step}, which is saved")

    def _read(self) -> None:
        """The metrics that are still to be read."""
        if self.pending is not None:
            with self.ledger.spends("step"):
                self.at.bad = _read(self.job, self.pending, self.at.bad, self.log, self.progress)
            self.pending = None


def _batches(job: Job, start: int, mesh: Mesh) -> dict[str, Iterator]:
    """An iterator per source; each host loads its own rows of every global batch."""
    rows = sharding.host_rows(job.recipe.batch_size, mesh)
    return {
        name: train_iterator(
            job.sources[name],
            job.recipe.batch_size,
            fold_seed(job.seed, job.data_name or job.name, name),
            start,
            job.recipe.steps,
            rows,
        )
        for name in job.objective.sources
    }


def _read(job: Job, pending: tuple[int, dict], bad: int, log: MetricLog | None, progress: StageProgress) -> int:
    """Fetch a step's metrics, log them, and count the steps in a row that were not finite."""
    step, metrics = pending[0], jax.device_get(pending[1])
    bad = 0 if metrics.pop("finite") else bad + 1
    if log and (step % job.recipe.log_every == 0 or step == job.recipe.steps or bad):
        log.write(step, {**metrics, "skipped": bool(bad)})
    progress.update(step, float(metrics["loss"]))
    if bad >= MAX_BAD_STEPS:
        raise Diverged(
            f"{job.name}: loss or gradient is not finite in {bad} steps in a row, the last is step {step}; "
            f"lower the learning rate or look at the data of these steps (metrics: {job.directory / METRICS})"
        )
    return bad


def _tally(job: Job) -> Tally:
    """Counts what cannot be read of the one data set that all sources are of; of sources that have none, nothing."""
    return next((t for s in job.sources.values() if (t := getattr(s, "tally", None))), Tally(0.0))
