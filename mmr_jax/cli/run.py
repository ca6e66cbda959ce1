"""mmr run: the whole study, from pretraining to the report. The same command resumes."""

from pathlib import Path

from absl import flags

from mmr_jax.cli import options

DRY_RUN = flags.DEFINE_bool("dry_run", False, "build everything, print sizes, run one step, write nothing")


def run() -> None:
    """Walk the graph; a changed option repeats only the stages that it touches."""
    config, changes = options.given_config()
    from mmr_jax import sweep
    from mmr_jax.study import Study
    from mmr_jax.study_report import report
    from mmr_jax.train import interrupt

    if DRY_RUN.value:
        from mmr_jax.dry_run import dry_run

        return dry_run(Study(config, options.WORKDIR.value or "."))
    workdir = Path(options.require(options.WORKDIR.value, "workdir", "runs/quickstart"))
    study = Study(config, workdir)
    study.stages()  # bad data or a bad model is refused before anything is written
    options.write_config(workdir, config, changes)
    with interrupt.handled():
        if config.sweep:
            return sweep.run(config, workdir, study.console)
        study.run(only=options.ONLY.value)
        if not options.ONLY.value:
            report(study, changes)
