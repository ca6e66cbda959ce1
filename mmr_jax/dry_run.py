"""Everything about a study that can be known before it runs: sizes, memory, FLOPs, and one real step of its stages."""

import copy
import time
from collections import Counter

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mmr_jax import tree
from mmr_jax.flops import count_flops
from mmr_jax.models.model import owner
from mmr_jax.models.tokenizers import input_spec
from mmr_jax.objectives import Masked
from mmr_jax.objectives.masking import kept
from mmr_jax.plans import Plan, plans
from mmr_jax.train import sharding


def dry_run(study, shapes_only: bool = False, console: Console | None = None) -> None:
    """Print what the study is and costs, then run two real steps of each plan. Nothing is written.

    `shapes_only` reads no record, allocates no array and runs no step: for configs that are too large for this machine
    or whose data is not there.
    """
    console = console or Console(highlight=False)
    study = _on_shapes(study) if shapes_only else study
    if not shapes_only:
        study.ready()
    _print_machine(study, console)
    _print_data(study, console)
    _print_parameters(study, console)
    _print_stages(study, console)
    headers = ("steps", "batch", "tokens", "params + moments, MiB", "GFLOP per example")
    costs = _table("stage", *headers, title="training steps")
    for plan in plans(study):
        sizes = (f"{plan.recipe.steps:,}", str(plan.recipe.batch_size), escape(_seen(study, plan)))
        costs.add_row(escape(plan.name), *sizes, *_costs(study, plan))
    console.print(costs)
    if not shapes_only:
        _print_steps(study, console)


def _on_shapes(study):
    """The study on one device: the batch need not divide over this machine's devices."""
    alone = copy.copy(study)
    alone.mesh = sharding.make_mesh(dict.fromkeys(sharding.AXES, 1), jax.devices()[:1])
    return alone


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
    tokenizers = study.model.bind(study.model.shapes).encoder.tokenizers
    return {m: tokenizers[m].count + int(tokenizers[m].tower.class_token) for m in study.modalities}


def sequences(study, plan: Plan) -> dict[str, tuple[int, int]]:
    """{modality: (tokens that the encoder sees in a plan's step, all of them)}; under one name if masked together."""
    every, objective = tokens(study), plan.objective
    if not isinstance(objective, Masked):
        return {m: (every[m], every[m]) for m in plan.modalities}
    if objective.together:
        total = sum(every[m] for m in plan.modalities)
        return {"+".join(plan.modalities): (kept(total, objective.masking[0][1]), total)}
    skip = int(study.model.encoder.tower.class_token)
    return {m: (skip + kept(every[m] - skip, ratio), every[m]) for m, ratio, _ in objective.masking}


def _seen(study, plan: Plan) -> str:
    """Lines for the table; the decoder of masked pretraining sees all tokens, the encoder those that are visible."""
    masked = isinstance(plan.objective, Masked)
    lines = (f"{m} {seen} of {n}" if masked else f"{m} {n}" for m, (seen, n) in sequences(study, plan).items())
    return "\n".join(lines)


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
