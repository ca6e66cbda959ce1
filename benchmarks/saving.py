"""What does saving cost a run? Steps with an asynchronous checkpoint every 50 of them, against steps with none.

python benchmarks/saving.py [--quick]

For the MASD step of configs/digits.py (or the quickstart's, where the data is absent), and for a ViT-B/16 on random
images. Here the processor both trains and writes, so this is the worst case: a TPU's host has nothing else to do.
"""

import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from common import arguments, interleaved, machine, median_ms, study_of
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from mmr_jax import config as configs
from mmr_jax.models.model import build_model
from mmr_jax.objectives import Supervised
from mmr_jax.plans import plans
from mmr_jax.train.checkpoint import Checkpoints
from mmr_jax.train.step import make_program

EVERY = 50


class Runner:
    """Runs a step again and again on one batch, as the training loop does."""

    def __init__(self, program, start, batches: dict, folder: Path):
        self.program, self.state, self.batches, self.done = program, start, batches, 0
        self.key, self.bytes = jax.random.key(0), sum(x.nbytes for x in jax.tree.leaves(start))
        self.checkpoints = Checkpoints(folder)

    def block(self, saves: bool) -> tuple[float, float]:
        """Seconds per step of `EVERY` steps, of which the first saves what was before it; seconds of that call.

        What is still being written at the end is waited for.
        """
        begun, held = time.perf_counter(), 0.0
        if saves:
            self.checkpoints.save(self.done, {"state": self.state._asdict()})
            held = time.perf_counter() - begun
        pending = None
        for _ in range(EVERY):
            self.state, metrics = self.program.step(self.state, self.batches, self.key)
            if pending is not None:
                jax.device_get(pending)
            pending = metrics
        self.done += EVERY
        jax.device_get(pending)
        self.checkpoints.wait()
        return (time.perf_counter() - begun) / EVERY, held


def from_study(folder: Path) -> tuple[str, Runner]:
    """The last training stage of a small study."""
    study = study_of(None)
    plan = plans(study)[-1]
    name = f"{study.config.name}, {plan.name}"
    return name, Runner(plan.program(study.mesh), plan.start(study.mesh), plan.batches(study.mesh), folder)


def vit(folder: Path, batch: int = 2) -> tuple[str, Runner]:
    """Supervised training of a ViT-B/16 at 224 x 224, float32."""
    config = configs.freeze(configs.base("synthetic", {"image": configs.image()}))
    changed = ConfigDict({**config.model, "size": "B"})
    model = build_model(configs.freeze(changed), config.modalities, 1000)
    objective = Supervised(model, ("image",))
    mesh = study_of(None).mesh
    program = make_program(objective, config.finetune.optim, 1000, 0.0, mesh)
    rng, ones = np.random.default_rng(0), np.ones(batch)
    rows = {
        "inputs": {"image": rng.integers(0, 256, (batch, 224, 224, 3)).astype(np.uint8)},
        "present": {"image": ones.astype(bool)},
        "length": {"image": np.full(batch, 1, np.int32)},
        "label": np.arange(batch, dtype=np.int32),
        "weight": ones.astype(np.float32),
        "id": np.arange(batch, dtype=np.int32),
    }
    return f"ViT-B/16, batch {batch}", Runner(
        program, program.start(*objective.init(jax.random.key(0))), {"labelled": rows}, folder
    )


def measure(runner: Runner, repetitions: int) -> tuple[str, ...]:
    """A row of the table."""
    runner.block(False)  # compiles
    found = interleaved({"none": lambda: runner.block(False), "saved": lambda: runner.block(True)}, repetitions)
    none, saved = (median_ms([seconds for seconds, _ in blocks]) for blocks in found.values())
    call = median_ms([held for _, held in found["saved"]])
    return f"{runner.bytes / 1e6:.0f}", f"{none:.1f}", f"{saved:.1f}", f"{saved / none:.3f}", f"{call:.0f}"


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    repetitions = 2 if options.quick else 4
    headers = ("state, MB", "none, ms", f"every {EVERY}, ms", "ratio", "the call, ms")
    table = Table("step", *headers, title="asynchronous saving")
    with tempfile.TemporaryDirectory() as folder:
        for make in (from_study, vit):
            name, runner = make(Path(folder) / make.__name__)
            table.add_row(name, *measure(runner, repetitions))
            runner.checkpoints.close()
    console = Console(highlight=False)
    console.print(table)
    console.print(f"medians of {repetitions} x {EVERY} steps, interleaved; {machine()}", markup=False)


if __name__ == "__main__":
    main()
