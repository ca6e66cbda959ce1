"""Everything about a study that can be known before it runs: sizes, memory, FLOPs, and one real step of its stages."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import FrozenConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mmr_jax import methods, tree
from mmr_jax.config import freeze
from mmr_jax.data.pipeline import batch_at
from mmr_jax.data.source import Source
from mmr_jax.flops import count_flops
from mmr_jax.models.model import owner
from mmr_jax.models.tokenizers import input_spec
from mmr_jax.objectives.base import Objective
from mmr_jax.robustness.subsets import parse_subset
from mmr_jax.seeds import fold_seed
from mmr_jax.train import sharding
from mmr_jax.train.step import Program, make_program


class Plan(NamedTuple):
    """One stage's training step: what is minimised, by which block of the config, on which sources."""

    name: str
    objective: Objective
    recipe: FrozenConfigDict
    sources: Mapping[str, Source]
    seed: int

    def program(self, mesh) -> Program:
        """The compiled step of the stage; the stage itself uses the same one."""
        return make_program(self.objective, self.recipe.optim, self.recipe.steps, self.recipe.ema, mesh)

    def batches(self, mesh, step: int = 0) -> dict:
        """The global batches of a step, on the mesh."""
        host = (jax.process_index(), jax.process_count())
        read = {
            name: batch_at(
                self.sources[name], self.recipe.batch_size, fold_seed(self.seed, self.name, name), step, *host
            )
            for name in self.objective.sources
        }
        return {name: sharding.put_batch(batch, mesh) for name, batch in read.items()}

    def start(self, mesh):
        """A first state with fresh parameters."""
        return self.program(mesh).start(*self.objective.init(jax.random.key(fold_seed(self.seed, "init"))))


def plans(study) -> list[Plan]:
    """The first pretraining stage, and the first MASD stage or else the first stage that trains a method."""
    stages = study.stages()
    trained = sorted((s for s in stages if s.method in methods.TRAINED), key=lambda s: s.method != "masd")
    first = next(s for s in stages if s.kind == "pretrain")
    return [_pretraining(study, first), *[_downstream(study, s) for s in trained[:1]]]


def _pretraining(study, stage) -> Plan:
    objective = methods.pretraining(study.config, study.model, parse_subset(stage.pretrain))
    sources = {"unlabelled": study.dataset.splits["unlabelled"]}
    return Plan(stage.name, objective, freeze(study.config.pretrain), sources, stage.seed)


def _downstream(study, stage) -> Plan:
    names = parse_subset(stage.train)
    objective = methods.objective(stage.method, study.config, study.model, names, study.dataset.multilabel)
    sources = {"labelled": study.labelled(stage.seed), "unlabelled": study.distillation(stage.seed)}
    return Plan(stage.name, objective, freeze(study.config.finetune), sources, stage.seed)


def dry_run(study, shapes_only: bool = False, console: Console | None = None) -> None:
    """Print what the study is and costs, then run two real steps of each plan. Nothing is written.

    `shapes_only` allocates no array and runs no step: for configs that are too large for this machine.
    """
    console = console or Console(highlight=False)
    _print_machine(study, console)
    _print_data(study, console)
    _print_parameters(study, console)
    _print_stages(study, console)
    costs = _table("stage", "batch", "params + moments, MiB", "GFLOP per example", title="training steps")
    for plan in plans(study):
        costs.add_row(escape(plan.name), str(plan.recipe.batch_size), *_costs(study, plan))
    console.print(costs)
    if not shapes_only:
        _print_steps(study, console)


def _table(first: str, *others: str, title: str) -> Table:
    """A table whose first column wraps rather than hides what is long."""
    return Table(Column(first, overflow="fold"), *others, title=title)


def _print_machine(study, console: Console) -> None:
    kinds = Counter(f"{d.platform} {d.device_kind}" for d in jax.devices())
    shown = ", ".join(f"{n} x {kind}" for kind, n in kinds.items())
    mesh = ", ".join(f"{axis} {size}" for axis, size in study.mesh.shape.items())
    console.print(f"devices: {shown}; mesh: {mesh}", markup=False)


def _print_data(study, console: Console) -> None:
    table = Table("split", "examples", title=escape(f"data set {study.dataset.name}"))
    for name, source in study.dataset.splits.items():
        table.add_row(escape(name), f"{len(source):,}")
    console.print(table)


def _print_stages(study, console: Console) -> None:
    stages = study.stages()
    table = Table("stages", "all", "finished", title=f"{len(stages)} stages")
    finished = Counter(s.kind for s in stages if study.record(s))
    for kind, count in Counter(s.kind for s in stages).items():
        table.add_row(kind, str(count), str(finished[kind]))
    console.print(table)


def branches(study) -> dict[str, int]:
    """Parameters by branch: each modality's own (tokenizer, blocks, norms), projections, shared, head."""
    sizes: Counter = Counter()
    for path, leaf in tree.flatten(study.model.shapes).items():
        top, name = path.split("/")[0], owner(path)
        sizes[top if top in ("head", "projections") else name if name in study.modalities else "shared"] += leaf.size
    return dict(sizes)


def tokens(study) -> dict[str, int]:
    """How many tokens each modality's blocks see (class token included)."""
    specs = batch_shapes(study, 1)
    found = jax.eval_shape(
        lambda params, batch: study.model.bind(params).encoder.tokens(batch["inputs"], batch["length"]),
        study.model.shapes,
        specs,
    )
    return {m: x.shape[1] for m, (x, _) in found.items()}


def _print_parameters(study, console: Console) -> None:
    sizes, lengths = branches(study), tokens(study)
    table = Table("branch", "parameters", "tokens", title="model")
    for name, size in sizes.items():
        table.add_row(escape(name), f"{size:,}", str(lengths.get(name, "")))
    table.add_row("total", f"{sum(sizes.values()):,}", str(sum(lengths.values())))
    console.print(table)


def batch_shapes(study, size: int) -> dict:
    """A batch of `size` examples as ShapeDtypeStructs."""
    struct, names = jax.ShapeDtypeStruct, sorted(study.config.modalities)
    specs = {m: input_spec(study.config.modalities[m]) for m in names}
    classes = (len(study.dataset.class_names),) if study.dataset.multilabel else ()
    return {
        "inputs": {m: struct((size, *shape), dtype) for m, (shape, dtype, _) in specs.items()},
        "present": {m: struct((size,), np.bool_) for m in names},
        "length": {m: struct((size,), np.int32) for m in names},
        "label": struct((size, *classes), np.float32 if classes else np.int32),
        "weight": struct((size,), np.float32),
        "id": struct((size,), np.int32),
    }


def _costs(study, plan: Plan) -> tuple[str, str]:
    """(MiB of parameters and moments, GFLOP per example) of a step, from shapes alone."""
    program = plan.program(study.mesh)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: program.start(*plan.objective.init(key)), key)
    batches = dict.fromkeys(plan.objective.sources, batch_shapes(study, plan.recipe.batch_size))
    flops = count_flops(program.step, state, batches, key)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state.params, state.opt_state)))
    more = f" + {flops.unbounded:.2e} per pass of loops" if flops.unbounded else ""
    return f"{kept / 2**20:.1f}", f"{flops.total / plan.recipe.batch_size / 1e9:.3f}{more}"


def _print_steps(study, console: Console) -> None:
    headers = ("MiB per device", "compile and 1st step, s", "2nd step, s", "losses")
    table = _table("stage", *headers, title="two real steps")
    for plan in plans(study):
        table.add_row(escape(plan.name), *_run(study, plan))
    console.print(table)


def _run(study, plan: Plan) -> tuple[str, ...]:
    """Compile and take two steps: (MiB, seconds, seconds, losses)."""
    sharding.check_batch(plan.recipe.batch_size, study.mesh)
    state, batches = plan.start(study.mesh), plan.batches(study.mesh)
    key, begun = jax.random.key(plan.seed), time.perf_counter()
    step = plan.program(study.mesh).step.lower(state, batches, key).compile()
    losses, seconds = [], []
    for _ in range(2):
        state, metrics = step(state, batches, key)
        losses.append(float(metrics["loss"]))
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return _memory(step), *[f"{s:.3f}" for s in seconds], f"{losses[0]:.4f}, {losses[1]:.4f}"


def _memory(compiled) -> str:
    """Arguments, outputs that are not donated arguments, and temporaries of a program on one device."""
    found = compiled.memory_analysis()
    if found is None:
        return "unknown"
    used = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return f"{(used - found.alias_size_in_bytes) / 2**20:.1f}"
