"""mmr finetune: probes and training stages of a study, and what they need."""

from mmr_jax.cli.part import run_part


def run() -> None:
    run_part(("train",))
