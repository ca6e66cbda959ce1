"""mmr report: the report of a workdir, or of anybody's scores."""

from pathlib import Path

from absl import flags
from rich.console import Console

from mmr_jax.cli import options
from mmr_jax.errors import UserError
from mmr_jax.files import read_json

SCORES = flags.DEFINE_string("scores", None, "a CSV (columns train, eval, score) or a folder of predictions")
OUT = flags.DEFINE_string("out", None, "where to write the report; default: report/ beside the input")
METRIC = flags.DEFINE_enum("metric", None, ["top1", "map"], "how a folder of predictions is scored")
CHANCE = flags.DEFINE_float("chance", None, "score of a model that guesses, for the chance-corrected R")


def run() -> None:
    """With --scores no config, no workdir and no jax is needed."""
    if SCORES.value:
        return _foreign(Path(SCORES.value))
    workdir = Path(options.require(options.WORKDIR.value, "workdir", "runs/quickstart"))
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds no study (config.json is absent); run mmr run first, or give --scores")
    import jax

    jax.config.update("jax_platforms", "cpu")  # the accelerator may be at work on this very study

    from mmr_jax import config as configs
    from mmr_jax.study import Study
    from mmr_jax.study_report import report

    if options.CONFIG.value is not None:
        options.check_same_config(workdir, options.CONFIG.value)
    config, changes = configs.from_dict(read_json(workdir / "config.json")), read_json(workdir / "config_diff.json")
    if config.sweep:
        from mmr_jax import sweep

        return sweep.summarize(config, workdir, changes, Console())
    report(Study(config, workdir), changes)


def _foreign(path: Path) -> None:
    from mmr_jax.robustness.report import print_summary, write_report
    from mmr_jax.robustness.results import load, metric_of

    results, predictions = load(path, METRIC.value)
    meta = {"title": path.stem}
    if METRIC.value or predictions:  # the metric of a CSV is not known unless it is said
        meta["metric"] = METRIC.value or metric_of(predictions)
    if CHANCE.value is not None:
        meta["chance"] = CHANCE.value
    out = Path(OUT.value) if OUT.value else path.parent / "report"
    write_report(out, results, meta, predictions)
    print_summary(results, meta)
    print(f"report: {out / 'index.html'}")
