"""A plan: every step of a config compiled for a target, and what follows from it, as plain JSON values."""

import importlib.util
from collections.abc import Callable
from importlib import metadata

import jax
from ml_collections import ConfigDict

from mmr_jax import config as configs
from mmr_jax.dry_run import sequences
from mmr_jax.errors import UserError, nearest
from mmr_jax.flops import count_flops
from mmr_jax.objectives import Masked
from mmr_jax.plan.advice import advise, waste
from mmr_jax.plan.facts import step_facts
from mmr_jax.plan.steps import Step, steps
from mmr_jax.plan.target import Target
from mmr_jax.study import Study
from mmr_jax.train.sharding import make_mesh

# A step of these settings computes nothing twice and in no kernel, so its FLOPs are those of the work itself.
_PLAIN = {"model.remat": "none", "model.attention": "xla", "pretrain.contrast": "plain"}
_PLAIN |= {"pretrain.microbatches": 1, "finetune.microbatches": 1}


def _print(text: str) -> None:
    print(text, flush=True)


def make_plan(config: ConfigDict, target: Target, only: str = "", told: Callable[[str], None] = _print) -> dict:
    """Compile the steps whose name holds `only`. Nothing runs; data, weights and devices need not be there.

    `told` hears which step is being compiled. The mesh is the config's; UserError where it does not fit the target.
    """
    study, mesh = Study(config, "."), make_mesh(config.mesh, list(target.devices))
    chosen = _chosen(study, only)
    useful = _useful(config, chosen)
    found = []
    for step in chosen:
        told(f"compiling {step.name}, batch {step.batch_size}, for {target.name}")
        found.append(step_facts(step, useful[step.name], mesh, target))
    made = {
        "name": config.name,
        "target": _about(target, mesh),
        "tpu": target.chip is not None,
        "versions": _versions(),
        "tokens": _tokens(study, chosen),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(study.model.shapes)),
        "steps": found,
    }
    made["waste"] = {name: waste(n) for name, n in made["tokens"].items()}
    return {**made, "advice": advise(configs.to_dict(config), made)}


def _chosen(study: Study, only: str) -> list[Step]:
    known = steps(study)
    found = [step for step in known if only in step.name]
    if not found:
        raise UserError(f"--only: no step is called {only!r}{nearest(only, [s.name for s in known])}")
    return found


def _useful(config: ConfigDict, chosen: list[Step]) -> dict[str, float]:
    """FLOPs of the global batch of each step, on one device."""
    plain = configs.from_dict(configs.to_dict(config))
    for field, value in _PLAIN.items():
        configs.set_field(plain, field, value)
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
    known = {step.name: step for step in steps(Study(plain, "."))}
    names = {s.name: "loss/plain" if s.name.startswith("loss/") else s.name for s in chosen}
    calls = {name: known[name].make(mesh, known[name].batch_size) for name in set(names.values())}
    flops = {name: count_flops(call.fn, *call.args).total for name, call in calls.items()}
    return {name: flops[plain] for name, plain in names.items()}


def _tokens(study: Study, chosen: list[Step]) -> dict[str, int]:
    """The lengths of the sequences that go through transformer blocks, of the first training step."""
    plan = next((step.plan for step in chosen if step.plan), None)
    if plan is None:
        return {}
    seen = sequences(study, plan)
    lengths = {m: n for m, (n, _) in seen.items()}
    if study.model.joint and len(lengths) > 1:
        lengths["joint"] = sum(lengths.values())
    if isinstance(plan.objective, Masked) and plan.objective.reconstruction_weight:
        lengths["decoder"] = sum(n for _, n in seen.values())
    return lengths


def _about(target: Target, mesh) -> dict:
    sizes = {"name": target.name, "devices": len(target.devices), "chips": target.chips, "hosts": target.hosts}
    more = {"mesh": dict(mesh.shape), "kind": target.devices[0].device_kind, "limit": target.limit}
    if target.chip:
        more |= {"flops": target.chip.flops, "clock": target.chip.clock, "link": target.chip.link}
    return {**sizes, **more}


def _versions() -> dict[str, str]:
    """Of what compiled."""
    known = {name: importlib.util.find_spec(name) and metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}
    return {name: version for name, version in known.items() if version}
