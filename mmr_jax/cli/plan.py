"""mmr plan: what the steps of a config cost on a TPU that is not there, or on this machine. Nothing runs."""

from pathlib import Path

from absl import flags
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.cli import options
from mmr_jax.errors import UserError

TOPOLOGY = flags.DEFINE_string("topology", "", "a TPU slice, v5e-64 or v5e:8x8; default: the machine at hand")
OUTPUT = flags.DEFINE_string("output", "", "folder for plan.json and plan.md; default: nothing is written")


def run() -> None:
    """Compile the training and evaluation steps on shapes alone; --only=TEXT: those whose name holds it."""
    config = options.require(options.CONFIG.value, "config", "configs/quickstart.py")
    if config.sweep:
        raise UserError("this config is a sweep of several studies: plan one of them, with --config.sweep='()'")
    from mmr_jax.plan.tables import print_plan, write_plan

    made = _make(config)
    print_plan(made, Console(highlight=False))
    if OUTPUT.value:
        write_plan(made, Path(OUTPUT.value))


def _make(config) -> dict:
    if TOPOLOGY.value:
        from mmr_jax.plan.child import plan_topology

        return plan_topology(configs.to_dict(config), TOPOLOGY.value, options.ONLY.value)
    from mmr_jax.plan.plan import make_plan
    from mmr_jax.plan.target import at_hand

    return make_plan(config, at_hand(), options.ONLY.value)
