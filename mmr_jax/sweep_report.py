"""What a sweep leaves: sweep.csv, sweep.png, and one report that holds the methods of all points."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmr_jax import config as configs
from mmr_jax.files import write_bytes, write_text
from mmr_jax.robustness.report import canvas, print_summary, write_report
from mmr_jax.robustness.results import Predictions
from mmr_jax.study_report import collect, report_meta

COLUMNS = ("axis", "point", "alignment", "baseline", "repair", "ratio", "baseline_transfer", "repair_transfer")
BASELINE = "finetune"


def write_combined(points: Iterable, config: ConfigDict, workdir: Path, changes: Mapping, console: Console) -> None:
    """workdir/report with every method of every point, called `<label>: <method>`; its table on the terminal.

    The baseline is the first point's fine-tuning. `points` are read once.
    """
    several = len({axis for axis, _, _ in config.sweep}) > 1
    results, predictions, metas = [], [], {}
    for point in points:
        prefix = f"{point.axis} {point.label}" if several else point.label
        found, files = collect(point.study)
        results += [replace(r, method=f"{prefix}: {r.method}") for r in found]
        predictions.append([replace(p, method=f"{prefix}: {p.method}") for p in files or []])
        metas[prefix] = report_meta(point.study, point.changes)
    paired = _same_examples(predictions)
    meta = _meta(metas, config, changes, paired)
    files = [p for of_point in predictions for p in of_point] if paired else None
    written = write_report(workdir / "report", results, meta, files)
    print_summary(results, meta, console)
    console.print(f"report: {written['html']}", markup=False, highlight=False, soft_wrap=True)


def _same_examples(predictions: Sequence[Sequence[Predictions]]) -> bool:
    """Are all points evaluated on the same examples, so that their differences can be paired?"""
    if not all(predictions):
        return False
    first = predictions[0][0]
    return all(
        np.array_equal(p.ids, first.ids) and np.array_equal(p.labels, first.labels) for of in predictions for p in of
    )


def _meta(metas: Mapping[str, Mapping], config: ConfigDict, changes: Mapping, paired: bool) -> dict:
    """One meta of all; what differs between points is in the notes and under the points' names."""
    first = next(iter(metas.values()))
    kept = {key: first[key] for key in ("modalities", "train_subsets", "metric", "versions", "notes")}
    chances = {meta.get("chance") for meta in metas.values()}
    differ = [
        f"{prefix}: " + (", ".join(f"{k} = {v[1]!r}" for k, v in _own(meta, changes).items()) or "the config as it is")
        for prefix, meta in metas.items()
    ]
    lacking = [] if paired else ["No intervals: the points have no predictions of the same test examples."]
    return {
        **kept,
        "title": f"Sweep: {config.name}",
        "baseline": f"{next(iter(metas))}: {BASELINE}",
        "config": configs.flatten(config),
        "config_diff": dict(changes),
        "notes": [*first["notes"], *differ, *lacking, "The folder points/ holds a report of each point."],
        "alpha": {f"{prefix}: {m}": a for prefix, meta in metas.items() for m, a in meta["alpha"].items()},
        "stages": [{**s, "name": f"{prefix}: {s['name']}"} for prefix, meta in metas.items() for s in meta["stages"]],
    } | ({"chance": chances.pop()} if len(chances) == 1 and None not in chances else {})


def _own(meta: Mapping, changes: Mapping) -> dict:
    """What a point changes, without what the whole sweep does."""
    return {k: v for k, v in meta["config_diff"].items() if tuple(v) != tuple(changes.get(k, ()))}


def write_rows(rows: Sequence[Mapping], workdir: Path, console: Console | None = None) -> None:
    """sweep.csv and sweep.png; with `console` also the table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(workdir / "sweep.csv", text.getvalue())
    write_bytes(workdir / "sweep.png", canvas.png(_picture(rows)))
    if console is None:
        return
    table = Table(*COLUMNS, title="R of the baseline and of the repair, P in transfer")
    for row in rows:
        table.add_row(*[f"{row[c]:.3f}" if isinstance(row[c], float) else escape(row[c]) for c in COLUMNS])
    console.print(table)
    console.print(f"picture: {workdir / 'sweep.png'}", markup=False, highlight=False, soft_wrap=True)


def _picture(rows: Sequence[Mapping]) -> Figure:
    """Left: both R against alignment; right: their ratio. One marker per axis of the sweep."""
    figure = canvas.figure(height=4.4, width=2 * canvas.WIDTH)
    left, right = figure.subplots(1, 2)
    handles = {}
    for index, axis in enumerate(dict.fromkeys(r["axis"] for r in rows)):
        points = sorted((r for r in rows if r["axis"] == axis), key=lambda r: r["alignment"])
        marker = canvas.MARKERS[index % len(canvas.MARKERS)]
        for panel, column, colour, name in (
            (left, "baseline", canvas.COLOURS[0], f"R of fine-tuning ({axis})"),
            (left, "repair", canvas.COLOURS[1], f"R of the repair ({axis})"),
            (right, "ratio", canvas.COLOURS[6], f"ratio ({axis})"),
        ):
            x, y = [r["alignment"] for r in points], [r[column] for r in points]
            (handles[name],) = panel.plot(x, y, marker=marker, color=colour)
        for r in points:
            place = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": canvas.FONT - 3}
            right.annotate(canvas.label(r["point"]), (r["alignment"], r["ratio"]), **place)
    right.axhline(1.0, color="#999999", linewidth=0.8)
    for panel, y in ((left, "R, overall"), (right, "R(repair) / R(fine-tuning)")):
        canvas.finish(panel, "alignment (class of the nearest neighbour)", y)
    canvas.legend_below(figure, list(handles.values()), list(handles), columns=3)
    return figure
