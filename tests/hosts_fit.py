"""For test_hosts: twenty steps of every kind of objective, on whatever devices and hosts there are.

python tests/hosts_fit.py <directory> <data> <fsdp> <tensor> <names of objectives>, one process per host
"""

import sys
import time
from pathlib import Path

import jax
import toy

from mmr_jax import config as configs
from mmr_jax import methods
from mmr_jax.cli.main import EXIT_CODES
from mmr_jax.objectives import Contrastive, Masd, Supervised
from mmr_jax.train import hosts, interrupt
from mmr_jax.train.checkpoint import save_params
from mmr_jax.train.loop import Job, fit
from mmr_jax.train.sharding import make_mesh

MODALITIES = {m: toy.MODALITIES[m] for m in ("audio", "text")}
STEPS = 20


def _masked(model):
    config = toy.get_config("two")
    for key, value in {"objective": "masked", "masking.text.ratio": 0.5, "contrastive_weight": 0.1}.items():
        configs.set_field(config.pretrain, key, value)
    return methods.pretraining(config, model, model.names)


OBJECTIVES = {
    "contrastive": lambda model: Contrastive(model, model.names, learn_temperature=True),
    "masd": lambda model: Masd(model, ("audio",)),
    "supervised": lambda model: Supervised(model, model.names),
    "masked": _masked,
}


class Slowly:
    """Batches that take their time, so that a signal finds the run under way."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def take(self, indices):
        time.sleep(0.3)
        return self.source.take(indices)


def job(name, directory, slowly=False):
    """Twenty steps of an objective; a fifth of the inputs is missing here and there."""
    objective = OBJECTIVES[name](toy.model({"adapter_depth": 1}, MODALITIES))
    present = {m: [i % 5 != k for i in range(40)] for k, m in enumerate(MODALITIES)}
    batches = [toy.Batches(toy.batch(40, i, present, MODALITIES)) for i in range(2)]
    sources = dict(zip(("labelled", "unlabelled"), map(Slowly, batches) if slowly else batches, strict=True))
    recipe = toy.recipe(steps=STEPS, batch_size=8, log_every=1, checkpoint_every=5, validate_every=0)
    params, _ = objective.init(jax.random.key(0))
    return Job(name, 0, Path(directory) / name, objective, recipe, sources, params)


def main(folder, data, fsdp, tensor, *names):
    with interrupt.handled():
        hosts.start()
        mesh = make_mesh({"data": int(data), "fsdp": int(fsdp), "tensor": int(tensor)})
        for name in names:
            outcome = fit(job(name.removesuffix("-slowly"), folder, name.endswith("-slowly")), mesh)
            save_params(Path(folder) / name / "params", outcome.params)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except tuple(EXIT_CODES) as error:
        print(error, file=sys.stderr)
        code = EXIT_CODES[type(error)]
        hosts.leave(code)
        sys.exit(code)
