"""mmr stage: exactly one stage of a study, whose needs are finished. Several may be at work in one workdir.

mmr stage --config=configs/quickstart.py --workdir=runs/quickstart --name=seed0/audio+text+video/pretrain
"""

from pathlib import Path

from absl import flags

from mmr_jax import config as configs
from mmr_jax.cli import options
from mmr_jax.cli.job import joined
from mmr_jax.errors import UserError, nearest
from mmr_jax.workdir_lock import locked

NAME = flags.DEFINE_string("name", None, "the stage, as mmr stages calls it")


def run() -> None:
    """Shares the workdir with other stages, not with mmr run; of each stage one process is the only one."""
    config, changes = options.given_config()
    workdir = Path(options.require(options.WORKDIR.value, "workdir", "runs/quickstart"))
    name = options.require(NAME.value, "name", "seed0/audio+video/pretrain")
    options.one_study(config)
    options.check_same_config(workdir, config)
    from mmr_jax.study import Study

    with joined(config, workdir) as hosts:
        study = Study(config, workdir)
        study.profile = options.profiled_steps()
        stage = _stage(study, name)
        study.ready()
        first = hosts.held_by_first
        with first(locked(workdir, shared=True)), first(locked(study.path(stage))):
            if hosts.first() and not (workdir / "config.json").exists():
                configs.write(workdir, config, changes)
            if study.record(stage):
                study.console.print(f"{name} is finished already", markup=False, highlight=False)
            study.run_stages([stage])


def _stage(study, name: str):
    """The stage of this name; UserError if there is none, or if something that it needs is not finished."""
    stages = {stage.name: stage for stage in study.stages()}
    if name not in stages:
        raise UserError(f"no stage is called {name!r}{nearest(name, stages)}")
    missing = [need.name for need in stages[name].needs if not study.record(need)]
    if missing:
        raise UserError(f"{name} needs what is not finished: {', '.join(missing)}")
    return stages[name]
