"""For test_resume: a MASD run of 20 steps with validation and averaging, twice; the second is killed at one step.

python tests/resume_fit.py <directory> <step at which to kill the second run; 0: only finish it>
"""

import os
import signal
import sys
from pathlib import Path

import toy

from mmr_jax.objectives import Masd
from mmr_jax.train.checkpoint import save_params
from mmr_jax.train.loop import Job, fit

MODALITIES = {m: toy.MODALITIES[m] for m in ("image", "text")}


def job(directory, kill_at=0):
    model = toy.model({"adapter_depth": 1}, MODALITIES)
    recipe = toy.recipe(steps=20, batch_size=8, ema=0.9, checkpoint_every=5, validate_every=1, log_every=1)
    sources = {
        s: toy.Batches(toy.batch(40, i, modalities=MODALITIES)) for i, s in enumerate(("labelled", "unlabelled"))
    }
    calls = []

    def validate(params):
        calls.append(1)
        if kill_at and len(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return -abs(float(params["head"]["bias"].sum()))

    return Job("job", 0, directory, Masd(model, ("text",)), recipe, sources, toy.parameters(model), validate=validate)


if __name__ == "__main__":
    folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    for name in ("whole", "parts") if kill_at else ("parts",):
        outcome = fit(job(folder / name, kill_at if name == "parts" else 0), toy.mesh())
        save_params(folder / name / "params", outcome.params)
        print(name, outcome.resumed_from, outcome.best_step)
