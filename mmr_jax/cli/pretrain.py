"""mmr pretrain: the pretraining stages of a study."""

from mmr_jax.cli.part import run_part


def run() -> None:
    run_part(("pretrain",))
