"""A part of a study as a command, so that a cluster can run the parts apart."""

from collections.abc import Sequence
from pathlib import Path

from mmr_jax import config as configs
from mmr_jax.cli import options
from mmr_jax.cli.job import joined
from mmr_jax.workdir_lock import locked


def run_part(kinds: Sequence[str]) -> None:
    """The stages of some kinds (narrowed by --only) and what they need, in a workdir of the same config."""
    config, changes = options.given_config()
    workdir = Path(options.require(options.WORKDIR.value, "workdir", "runs/quickstart"))
    options.one_study(config)
    options.check_same_config(workdir, config)
    from mmr_jax.study import Study

    with joined(config, workdir) as hosts:
        study = Study(config, workdir)
        study.profile = options.profiled_steps()
        study.select(kinds, options.ONLY.value)
        study.ready()  # bad data, a bad model or too few devices are refused before anything is written
        with hosts.held_by_first(locked(workdir)):
            hosts.from_first(lambda: configs.write(workdir, config, changes))
            study.run(kinds, options.ONLY.value)
