"""mmr stages: the stages of a study, each after those it needs, for whoever runs them apart with `mmr stage`."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Column, Table

from mmr_jax.cli import options

FORMAT = flags.DEFINE_enum("format", "table", ["table", "tsv"], "a table, or tab-separated values with a header")


def run() -> None:
    """Reads the workdir and writes nothing; without --workdir no stage is finished."""
    config = options.require(options.CONFIG.value, "config", "configs/quickstart.py")
    options.one_study(config)
    workdir = options.WORKDIR.value
    if workdir:
        options.check_same_config(Path(workdir), config)
    import jax

    jax.config.update("jax_platforms", "cpu")  # the accelerator may be at work on this very study

    from mmr_jax.study import Study

    study = Study(config, workdir or ".")
    stages = study.stages()
    finished = ["yes" if workdir and study.record(stage) else "no" for stage in stages]
    (_print_tsv if FORMAT.value == "tsv" else _print_table)(stages, finished)


def _print_tsv(stages: Sequence, finished: Sequence[str]) -> None:
    """The names of the stages that one needs are joined by commas."""
    print("name\tkind\tneeds\tfinished")
    for stage, done in zip(stages, finished, strict=True):
        print(stage.name, stage.kind, ",".join(need.name for need in stage.needs), done, sep="\t")


def _print_table(stages: Sequence, finished: Sequence[str]) -> None:
    numbers = {stage.name: str(number) for number, stage in enumerate(stages, 1)}
    table = Table("", *(Column(name, no_wrap=True) for name in ("name", "kind")), "needs", "done")
    for stage, done in zip(stages, finished, strict=True):
        needs = " ".join(numbers[need.name] for need in stage.needs)
        table.add_row(numbers[stage.name], stage.name, stage.kind, needs, done)
    Console(highlight=False).print(table)
