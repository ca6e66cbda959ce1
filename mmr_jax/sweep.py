"""A study repeated at several points of its config: what the points change, side by side.

`config.sweep` is a tuple of points (axis, label, ((field, value), ...)). Each point is a whole study of its own in
`workdir/points/<axis>=<label>`, with its own report. Over all points there are `workdir/report` with every method of
every point in one table, and sweep.csv and sweep.png: R of fine-tuning, R of the repair and their ratio against the
alignment that pretraining reached there.
"""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.errors import UserError
from mmr_jax.robustness.metrics import analyse
from mmr_jax.study import Study
from mmr_jax.study_report import matrices, report
from mmr_jax.sweep_report import BASELINE, write_combined, write_rows


class Point(NamedTuple):
    """One point: where it stands, its study, and {field: (value in the file, value here)}."""

    axis: str
    label: str
    study: Study
    changes: dict[str, tuple]


def points(config: ConfigDict, workdir: Path, changes: Mapping, console: Console | None = None) -> Iterator[Point]:
    """The points, each made only when asked for, so that one at a time holds its data.

    `changes` is the difference of `config` from its file.
    """
    plain = {**configs.to_dict(config), "sweep": ()}
    for axis, label, fields in config.sweep:
        point = configs.from_dict(plain)
        for name, value in fields:
            configs.set_field(point, name, value)
        found = configs.difference(point, configs.from_dict(plain))
        found = {field: (changes.get(field, values)[0], values[1]) for field, values in found.items()}
        study = Study(point, Path(workdir) / "points" / f"{axis}={label}", console)
        yield Point(axis, str(label), study, {**changes, **found})


def check(config: ConfigDict, workdir: Path) -> None:
    """Refuse a sweep that some point would end: every study is built and checked before the first one runs."""
    folders: list[Path] = []
    first = None
    for point in points(config, workdir, {}):
        study, name = point.study, f"sweep, {point.axis} = {point.label}"
        if study.workdir in folders or study.workdir.parent != Path(workdir) / "points":
            raise UserError(f"{name}: a point's axis and label name its folder: they must be unique and without /")
        folders.append(study.workdir)
        if not {BASELINE, study.config.study.export} <= set(study.config.study.methods):
            raise UserError(f"{name}: needs {BASELINE!r} in study.methods, and the repair's name in study.export")
        try:
            study.ready()
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        cells = (study.modalities, study.train_subsets, study.metric)
        first = first or cells
        if cells != first:
            raise UserError(f"{name}: modalities, study.train_subsets and the metric must be those of the first point")


def run(config: ConfigDict, workdir: Path, changes: Mapping, console: Console) -> None:
    """Run every point (finished stages are kept) with its report; sweep.csv grows with each, then all is summarized."""
    rows = []
    for point in points(config, workdir, changes, console):
        console.rule(f"{point.axis} = {point.label}")
        configs.write(point.study.workdir, point.study.config, point.changes)
        point.study.run()
        report(point.study, point.changes)
        rows.append(_row(point))
        write_rows(rows, Path(workdir))
    summarize(config, workdir, changes, console)


def summarize(config: ConfigDict, workdir: Path, changes: Mapping, console: Console) -> None:
    """The table, the picture and the combined report of a sweep whose points are finished."""
    write_combined(points(config, workdir, changes), config, Path(workdir), changes, console)
    rows = [_row(point) for point in points(config, workdir, changes)]
    write_rows(rows, Path(workdir), console)


def _row(point: Point) -> dict:
    return {"axis": point.axis, "point": point.label, **point_numbers(point.study)}


def point_numbers(study: Study) -> dict[str, float]:
    """Means over seeds at one point; NaN where there is nothing. The repair is the method that the study exports."""
    pretrained = [study.record(s)["alignment"] for s in study.stages() if s.kind == "pretrain"]
    pairs = [pair["class"] for found in pretrained for pair in found.values()]
    base, repair = (_summary(study, m) for m in (BASELINE, study.config.study.export))
    return {
        "alignment": statistics.mean(pairs or [float("nan")]),
        "baseline": base["overall"],
        "repair": repair["overall"],
        "ratio": repair["overall"] / base["overall"] if base["overall"] else float("nan"),
        "baseline_transfer": base["transfer"],
        "repair_transfer": repair["transfer"],
    }


def _summary(study: Study, method: str) -> dict[str, float]:
    """R overall and P in transfer of a method, mean over seeds."""
    found = [analyse(scores, study.modalities, study.train_subsets) for scores in matrices(study, method)]
    transfer = [f["transfer"].performance for f in found if "transfer" in f]
    return {
        "overall": statistics.mean(f["overall"].robustness for f in found),
        "transfer": statistics.mean(transfer or [float("nan")]),
    }
