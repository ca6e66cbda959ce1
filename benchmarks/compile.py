"""Scanned against unrolled layers: time to compile the pretraining step, and time of the step.

python benchmarks/compile.py [--config=configs/digits.py] [--quick]
"""

import functools
import time

import jax
from common import arguments, interleaved, machine, median_ms, seconds, study_of
from rich.console import Console
from rich.table import Table

from mmr_jax.dry_run import plans
from mmr_jax.train.step import make_program


class Variant:
    """The pretraining step of a config at some depth, with scanned or unrolled layers."""

    def __init__(self, config: str | None, depth: int, scan: bool):
        self.study = study_of(config, **{"model.size": "", "model.depth": depth, "model.scan_layers": scan})
        self.plan = plans(self.study)[0]
        self.batches, self.key = self.plan.batches(self.study.mesh), jax.random.key(0)

    def compile(self) -> float:
        """Seconds to trace, lower and compile from nothing; sets the state at its start."""
        jax.clear_caches()
        make_program.cache_clear()
        self.state = self.plan.start(self.study.mesh)
        begun = time.perf_counter()
        program = self.plan.program(self.study.mesh).step
        self.step = program.lower(self.state, self.batches, self.key).compile()
        return time.perf_counter() - begun

    def advance(self):
        """One step; returns what to wait for."""
        self.state, metrics = self.step(self.state, self.batches, self.key)
        return metrics


def measure(config: str | None, depth: int, compilations: int, steps: int) -> list[tuple[str, ...]]:
    """The rows of one depth."""
    variants = {"scan": Variant(config, depth, True), "unrolled": Variant(config, depth, False)}
    compiled = interleaved({name: v.compile for name, v in variants.items()}, compilations)
    runs = {name: functools.partial(seconds, v.advance) for name, v in variants.items()}
    interleaved(runs, 2)
    times = interleaved(runs, steps)
    base = median_ms(compiled["scan"]), median_ms(times["scan"])
    rows = []
    for name in variants:
        spent, step = median_ms(compiled[name]), median_ms(times[name])
        ratios = f"{spent / base[0]:.2f}", f"{step / base[1]:.2f}"
        rows.append((str(depth), name, f"{spent / 1e3:.1f}", ratios[0], f"{step:.1f}", ratios[1]))
    return rows


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    depths, compilations, steps = ((4,), 1, 5) if options.quick else ((4, 12), 3, 15)
    headers = ("depth", "layers", "compile, s", "ratio", "step, ms", "ratio")
    table = Table(*headers, title="pretraining step")
    for depth in depths:
        for row in measure(options.config, depth, compilations, steps):
            table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"medians of {compilations} compilations and {steps} steps, interleaved; {machine()}", markup=False)


if __name__ == "__main__":
    main()
