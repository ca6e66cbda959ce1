"""The training steps of a study that a dry run and the benchmarks take: one of pretraining, one of a method."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
from ml_collections import FrozenConfigDict

from mmr_jax import methods
from mmr_jax.config import freeze
from mmr_jax.data.pipeline import batch_at
from mmr_jax.data.source import Source
from mmr_jax.objectives.base import Objective
from mmr_jax.robustness.subsets import parse_subset
from mmr_jax.seeds import fold_seed
from mmr_jax.train import sharding
from mmr_jax.train.step import Program, make_program


@dataclass(frozen=True)
class Plan:
    """One stage's training step: what is minimised, by which block of the config, on which modalities and sources.

    `open` gives the sources; it is not called on shapes alone, for it may read data (balanced sampling reads labels).
    """

    name: str
    objective: Objective
    recipe: FrozenConfigDict
    modalities: tuple[str, ...]
    open: Callable[[], Mapping[str, Source]]
    seed: int

    @functools.cached_property
    def sources(self) -> Mapping[str, Source]:
        """What the step's batches are drawn from."""
        return self.open()

    def program(self, mesh) -> Program:
        """The compiled step of the stage; the stage itself uses the same one."""
        recipe = self.recipe
        average = (recipe.average_every, recipe.average_from)
        return make_program(self.objective, recipe.optim, recipe.steps, recipe.ema, mesh, average)

    def batches(self, mesh, step: int = 0) -> dict:
        """The global batches of a step, on the mesh."""
        rows = sharding.host_rows(self.recipe.batch_size, mesh)
        read = {
            name: batch_at(
                self.sources[name], self.recipe.batch_size, fold_seed(self.seed, self.name, name), step, rows
            )
            for name in self.objective.sources
        }
        return {name: sharding.put_batch(batch, mesh) for name, batch in read.items()}

    def start(self, mesh):
        """A first state with fresh parameters."""
        return self.program(mesh).start(*self.objective.init(jax.random.key(fold_seed(self.seed, "init"))))


def plans(study) -> list[Plan]:
    """The first pretraining stage, and the first MASD stage or else the first stage that trains a method.

    Pretraining of no steps only takes given weights over, so it is not among them.
    """
    stages = study.stages()
    trained = sorted((s for s in stages if s.method in methods.TRAINED), key=lambda s: s.method != "masd")
    first = [s for s in stages if s.kind == "pretrain" and study.config.pretrain.steps]
    return [*[_pretraining(study, s) for s in first[:1]], *[_downstream(study, s) for s in trained[:1]]]


def _pretraining(study, stage) -> Plan:
    names, recipe = parse_subset(stage.pretrain), freeze(study.config.pretrain)
    objective = methods.pretraining(study.config, study.model, names)

    def sources():
        return {"unlabelled": study.dataset.splits["unlabelled"]}

    return Plan(stage.name, objective, recipe, names, sources, stage.seed)


def _downstream(study, stage) -> Plan:
    names, recipe = parse_subset(stage.train), freeze(study.config.finetune)
    objective = methods.objective(stage.method, study.config, study.model, names, study.dataset.multilabel)
    seen = names if objective.sources == ("labelled",) else study.model.names

    def sources():
        return {"labelled": study.training(stage.seed), "unlabelled": study.distillation(stage.seed)}

    return Plan(stage.name, objective, recipe, seen, sources, stage.seed)
