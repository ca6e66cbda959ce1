"""A part of a study as a command, so that a cluster can run the parts apart."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from mmr_jax import config as configs
from mmr_jax.cli import options
from mmr_jax.workdir_lock import locked


def run_part(kinds: Sequence[str]) -> None:
    """The stages of some kinds (narrowed by --only) and what they need, in a workdir of the same config."""
    config, changes = options.given_config()
    workdir = Path(options.require(options.WORKDIR.value, "workdir", "runs/quickstart"))
    options.one_study(config)
    options.check_same_config(workdir, config)
    from mmr_jax.study import Study
    from mmr_jax.train import interrupt

    with contextlib.ExitStack() as stack:
        stack.enter_context(interrupt.handled(ends_process=True))
        study = Study(config, workdir)
        study.select(kinds, options.ONLY.value)
        study.ready()  # bad data, a bad model or too few devices are refused before anything is written
        stack.enter_context(locked(workdir))
        configs.write(workdir, config, changes)
        study.run(kinds, options.ONLY.value)
