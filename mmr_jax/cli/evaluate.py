"""mmr evaluate: evaluation stages of a study, retrieval and reconstructions, and what they need."""

from mmr_jax.cli.part import run_part


def run() -> None:
    run_part(("evaluate", "retrieve", "reconstruct"))
