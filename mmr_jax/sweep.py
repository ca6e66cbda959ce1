"""A study repeated at several points of its config: how a repair's gain depends on what the points change.

`config.sweep` is a tuple of points (axis, label, ((field, value), ...)). Each point is a whole study of its own in
`workdir/points/<axis>=<label>`; the picture holds R of the baseline, R of the repair and their ratio against the
alignment that pretraining reached there.
"""

import csv
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from mmr_jax import config as configs
from mmr_jax.robustness.metrics import analyse
from mmr_jax.study import Study
from mmr_jax.study_report import matrices, report

COLUMNS = ("axis", "point", "alignment", "baseline", "repair", "ratio", "baseline_transfer", "repair_transfer")
MARKERS = "osD^vPX*"
BASELINE = "finetune"


def studies(config: ConfigDict, workdir: Path, console: Console | None) -> Iterator[tuple[str, str, Study]]:
    """(axis, label, study) of each point: the point's fields set, a workdir of its own, made only when asked for."""
    for axis, label, changes in config.sweep:
        point = configs.from_dict({**configs.to_dict(config), "sweep": ()})
        for name, value in changes:
            configs.set_field(point, name, value)
        yield axis, str(label), Study(point, Path(workdir) / "points" / f"{axis}={label}", console)


def run(config: ConfigDict, workdir: Path, console: Console) -> None:
    """Run every point (finished stages are kept), then write sweep.csv and sweep.png and print the table."""
    rows = []
    for axis, label, study in studies(config, workdir, console):
        console.rule(f"{axis} = {label}")
        study.run()
        report(study, {})
        rows.append({"axis": axis, "point": label, **point_numbers(study)})
    write(rows, Path(workdir), console)


def point_numbers(study: Study) -> dict[str, float]:
    """Means over seeds at one point. The repair is the method that the study exports."""
    pretrained = [study.record(s)["alignment"] for s in study.stages() if s.kind == "pretrain"]
    aligned = [statistics.mean(pair["class"] for pair in found.values()) for found in pretrained]
    base, repair = (_summary(study, m) for m in (BASELINE, study.config.study.export))
    numbers = {"alignment": statistics.mean(aligned), "baseline": base["overall"], "repair": repair["overall"]}
    numbers["ratio"] = numbers["repair"] / numbers["baseline"]
    return {**numbers, "baseline_transfer": base["transfer"], "repair_transfer": repair["transfer"]}


def _summary(study: Study, method: str) -> Mapping[str, float]:
    """R overall and P in transfer of a method, mean over seeds."""
    found = [analyse(scores, study.modalities, study.train_subsets) for scores in matrices(study, method)]
    return {
        "overall": statistics.mean(f["overall"].robustness for f in found),
        "transfer": statistics.mean(f["transfer"].performance for f in found),
    }


def write(rows: list[dict], workdir: Path, console: Console) -> None:
    """sweep.csv, sweep.png and the table on the terminal."""
    with open(workdir / "sweep.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (workdir / "sweep.png").unlink(missing_ok=True)
    _picture(rows).savefig(workdir / "sweep.png", dpi=150)
    table = Table(*COLUMNS, title="R of the baseline and of the repair, P in transfer")
    for row in rows:
        table.add_row(*[f"{row[c]:.3f}" if isinstance(row[c], float) else row[c] for c in COLUMNS])
    console.print(table)
    console.print(f"picture: {workdir / 'sweep.png'}", markup=False, soft_wrap=True)


def _picture(rows: list[dict]) -> Figure:
    """Left: both R against alignment; right: their ratio. One marker per axis of the sweep."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for marker, axis in zip(MARKERS, dict.fromkeys(r["axis"] for r in rows), strict=False):
        points = sorted((r for r in rows if r["axis"] == axis), key=lambda r: r["alignment"])
        x = [r["alignment"] for r in points]
        left.plot(x, [r["baseline"] for r in points], marker + ":", color="#0072B2", label=f"fine-tuning ({axis})")
        left.plot(x, [r["repair"] for r in points], marker + "-", color="#D55E00", label=f"repair ({axis})")
        right.plot(x, [r["ratio"] for r in points], marker + "-", color="#333333", label=axis)
        for r in points:
            right.annotate(r["point"], (r["alignment"], r["ratio"]), (4, 4), textcoords="offset points", fontsize=8)
    right.axhline(1.0, color="#999999", linewidth=0.8)
    for panel, title in ((left, "R, overall"), (right, "R(repair) / R(fine-tuning)")):
        panel.set(xlabel="alignment (class of the nearest neighbour in the other modality)", title=title)
        panel.legend(fontsize=8)
    return figure
