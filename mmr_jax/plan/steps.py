"""The programs of a study, as functions of a mesh and a batch size, with their arguments as shapes."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmr_jax.dry_run import batch_shapes
from mmr_jax.models.model import cut
from mmr_jax.models.placement import within
from mmr_jax.objectives import Contrastive, Masked
from mmr_jax.objectives.contrastive import CONTRASTS, pairwise_loss
from mmr_jax.plans import Plan, plans
from mmr_jax.robustness import evaluator
from mmr_jax.robustness.subsets import subset_masks
from mmr_jax.train.sharding import BATCH, check_batch


class Call(NamedTuple):
    """A jitted function and what it is called with: ShapeDtypeStructs that lie on a mesh. `kinds` names parts of them.

    A state that training keeps is among them as a whole: {"parameters", "moments", "other state"}.
    """

    fn: Callable
    args: tuple
    kinds: dict[str, object]


@dataclass(frozen=True)
class Step:
    """One program of a study: `make(mesh, batch_size)` is how it is called. `plan`: of what it trains."""

    name: str
    batch_size: int
    make: Callable[[Mesh, int], Call]
    plan: Plan | None = None

    def shards(self, mesh: Mesh) -> int:
        """What a batch must be a multiple of."""
        parts = self.plan.recipe.microbatches if self.plan else 1
        return parts * math.prod(mesh.shape[axis] for axis in BATCH[0])


def steps(study) -> list[Step]:
    """A training step of each plan, the evaluation of all subsets, and the contrastive loss alone in all its ways."""
    trained = [Step(p.name, p.recipe.batch_size, functools.partial(_train, study, p), p) for p in plans(study)]
    evaluated = Step("evaluate", study.config.study.eval_batch_size, functools.partial(_evaluate, study))
    losses = [step for s in trained for step in _losses(study, s.plan)]
    return [*trained, evaluated, *losses]


def bytes_per_device(tree) -> int:
    """Of a tree of placed ShapeDtypeStructs, on one device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _place(tree, mesh: Mesh, spec: PartitionSpec):
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _train(study, plan: Plan, mesh: Mesh, size: int) -> Call:
    check_batch(size, mesh, plan.recipe.microbatches)
    program, key = plan.program(mesh), jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: program.start(*plan.objective.init(key)), key)
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, program.shardings)
    batches = _place(dict.fromkeys(plan.objective.sources, batch_shapes(study, size)), mesh, BATCH)
    kinds = {"parameters": state.params, "moments": state.opt_state, "other state": (state.step, state.extra)}
    return Call(program.step, (state, batches, _place(key, mesh, PartitionSpec())), kinds | {"batch": batches})


def _evaluate(study, mesh: Mesh, size: int) -> Call:
    check_batch(size, mesh)
    _, program = evaluator._programs(study.model, mesh, study.dataset.multilabel)
    params = _place(study.model.shapes, mesh, PartitionSpec())
    batch = _place(batch_shapes(study, size), mesh, BATCH)
    masks = _place(subset_masks(study.model.names, study.eval_subsets), mesh, PartitionSpec())
    return Call(program, (params, batch, masks), {"parameters": params, "batch": batch})


def _losses(study, plan: Plan) -> list[Step]:
    objective = plan.objective
    contrasts = isinstance(objective, Contrastive) or isinstance(objective, Masked) and objective.contrastive_weight
    if not contrasts or len(plan.modalities) < 2:
        return []
    return [
        Step(f"loss/{contrast}", plan.recipe.batch_size, functools.partial(_loss, study, plan, contrast))
        for contrast in CONTRASTS
    ]


def _loss(study, plan: Plan, contrast: str, mesh: Mesh, size: int) -> Call:
    """Value and gradient by embeddings that are split over the mesh, as they are in a training step."""
    check_batch(size, mesh)
    objective = plan.objective

    def value(z, present):
        given = (objective.temperature, objective.direction, objective.bias, contrast)
        return pairwise_loss(objective.loss_name, z, present, *given)[0]

    def embed(params, batch):
        inputs, length, present = cut(batch, plan.modalities)
        return objective.model.bind(params).contrastive(inputs, length), present

    args = jax.eval_shape(embed, objective.model.shapes, batch_shapes(study, size))
    args = _place(args, mesh, BATCH)
    return Call(jax.jit(within(mesh, jax.value_and_grad(value))), args, {"embeddings": args})
