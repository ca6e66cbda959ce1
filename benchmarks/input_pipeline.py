"""Does the input pipeline keep up? Step time on real batches against the same step fed with one constant batch.

python benchmarks/input_pipeline.py [--config=configs/digits.py] [--quick]
"""

import statistics
import time

import jax
from common import arguments, interleaved, machine, median_ms, study_of
from rich.console import Console
from rich.table import Table

from mmr_jax.data.pipeline import train_iterator
from mmr_jax.dry_run import Plan, plans
from mmr_jax.seeds import fold_seed
from mmr_jax.train import sharding

WARM = 8  # steps before the clock starts: twice what the pipeline reads ahead


class Runner:
    """Runs blocks of steps as the training loop does: metrics are read when the next step is under way."""

    def __init__(self, plan: Plan, mesh, steps: int, blocks: int):
        self.mesh, self.steps = mesh, steps
        self.key, self.state = jax.random.key(0), plan.start(mesh)
        self.constant = plan.batches(mesh)
        self.step = plan.program(mesh).step
        last = (blocks + 1) * (steps + WARM)
        self.sources = {
            name: train_iterator(plan.sources[name], plan.recipe.batch_size, fold_seed(0, name), 0, last)
            for name in plan.objective.sources
        }

    def fed(self):
        """A batch from the pipeline, on the device."""
        return {name: sharding.put_batch(next(source), self.mesh) for name, source in self.sources.items()}

    def block(self, batch) -> tuple[float, float]:
        """(seconds per step, share of the time spent on getting the batch)."""
        self._go(batch, WARM)
        begun = time.perf_counter()
        waited = self._go(batch, self.steps)
        took = time.perf_counter() - begun
        return took / self.steps, waited / took

    def _go(self, batch, steps: int) -> float:
        waited, pending = 0.0, None
        for _ in range(steps):
            begun = time.perf_counter()
            given = batch()
            waited += time.perf_counter() - begun
            self.state, metrics = self.step(self.state, given, self.key)
            if pending is not None:
                jax.device_get(pending)
            pending = metrics
        jax.device_get(pending)
        return waited


def measure(plan: Plan, mesh, steps: int, repetitions: int) -> tuple[str, ...]:
    """A row of the table."""
    runner = Runner(plan, mesh, steps, repetitions)
    variants = {"fed": lambda: runner.block(runner.fed), "constant": lambda: runner.block(lambda: runner.constant)}
    found = interleaved(variants, repetitions)
    fed, constant = (median_ms([seconds for seconds, _ in found[name]]) for name in variants)
    waiting = statistics.median([share for _, share in found["fed"]])
    return f"{fed:.1f}", f"{constant:.1f}", f"{fed / constant:.2f}", f"{100 * waiting:.1f} %"


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    steps, repetitions = (6, 3) if options.quick else (20, 7)
    study = study_of(options.config)
    table = Table("stage", "batch", "pipeline, ms", "constant, ms", "ratio", "data wait", title=study.config.name)
    for plan in plans(study):
        table.add_row(plan.name, str(plan.recipe.batch_size), *measure(plan, study.mesh, steps, repetitions))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"medians of {repetitions} x {steps} steps, interleaved; {machine()}", markup=False)


if __name__ == "__main__":
    main()
