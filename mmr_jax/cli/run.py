"""mmr run: the whole study, from pretraining to the report. The same command resumes."""

from pathlib import Path

from absl import flags
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.cli import options
from mmr_jax.cli.job import joined
from mmr_jax.errors import UserError
from mmr_jax.workdir_lock import locked

DRY_RUN = flags.DEFINE_bool("dry_run", False, "build everything, print sizes, run two steps, write nothing")
SHAPES = flags.DEFINE_bool("shapes", False, "with --dry_run: on shapes alone; reads no data, allocates no model")


def run() -> None:
    """Walk the graph; a changed option repeats only the stages that it touches."""
    if SHAPES.value and not DRY_RUN.value:
        raise UserError("--shapes goes with --dry_run: nothing can be trained on shapes alone")
    config, changes = options.given_config()
    if config.sweep and options.ONLY.value:
        options.one_study(config)
    if DRY_RUN.value:
        return _dry_run(config)
    workdir = Path(options.require(options.WORKDIR.value, "workdir", "runs/quickstart"))
    (_sweep if config.sweep else _study)(config, workdir, changes)


def _study(config, workdir: Path, changes: dict) -> None:
    from mmr_jax.study import Study
    from mmr_jax.study_report import report

    with joined(config, workdir) as hosts:
        study = Study(config, workdir)
        study.profile = options.profiled_steps()
        study.ready()  # bad data, a bad model or too few devices are refused before anything is written
        with hosts.held_by_first(locked(workdir)):
            hosts.from_first(lambda: configs.write(workdir, config, changes))
            study.run(only=options.ONLY.value)
            if not options.ONLY.value:
                hosts.from_first(lambda: report(study, changes))


def _sweep(config, workdir: Path, changes: dict) -> None:
    from mmr_jax import sweep

    with joined(config, workdir) as hosts:
        if hosts.many():
            raise UserError("a sweep of several studies runs on one host: give each host a study of its own")
        sweep.check(config, workdir)
        with locked(workdir):
            configs.write(workdir, config, changes)
            sweep.run(config, workdir, changes, Console())


def _dry_run(config) -> None:
    from mmr_jax import sweep
    from mmr_jax.dry_run import dry_run
    from mmr_jax.study import Study

    workdir = options.WORKDIR.value or "."
    if not config.sweep:
        return dry_run(Study(config, workdir), shapes_only=SHAPES.value)
    console = Console(highlight=False)
    for point in sweep.points(config, Path(workdir), {}):
        console.rule(f"{point.axis} = {point.label}")
        dry_run(point.study, shapes_only=SHAPES.value, console=console)
