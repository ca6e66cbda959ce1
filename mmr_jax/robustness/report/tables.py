"""The tables of a report, from its content."""

import math

from mmr_jax.robustness import views
from mmr_jax.robustness.report.blocks import Table
from mmr_jax.robustness.report.content import Content
from mmr_jax.robustness.report.words import SLICE_NAMES, listed, metric_name, scale_of
from mmr_jax.robustness.subsets import all_subsets

FOUR = {
    "performance": "P",
    "robustness": "R",
    "performance_best": "P best",
    "robustness_best": "R best",
}


def metric_columns(content: Content, table: views.Table) -> list[tuple[str, str, str]]:
    """(slice, key, label) of the columns of Table 1: four overall, P and R of each slice that has a cell."""
    columns = []
    for name in next(iter(table.values())):
        keys = FOUR if name == "overall" else ("performance", "robustness")
        prefix = "" if name == "overall" else f"{SLICE_NAMES[name]} "
        columns += [(name, key, prefix + FOUR[key]) for key in keys]
    return columns


def table_1(content: Content) -> Table:
    """Methods x metrics (the paper's Table 1), mean ± sample standard deviation over seeds."""
    title = f"Performance P and robustness R: {metric_name(content)}, mean ± deviation over seeds"
    note = "Bold: highest of its column. Missing: M_E inside M_T; added: M_T inside M_E; transfer: disjoint."
    return _metric_table(content, content.table, title, note)


def without_full(content: Content) -> Table | None:
    """The same without the training set M_T = M."""
    full = all_subsets(content.modalities)[-1]
    if not content.summary_without_full or full not in content.train_subsets:
        return None
    cells = content.summary_without_full["overall"].cells
    note = f"{cells} cells overall. A model trained on every modality has no added and no transfer cell."
    return _metric_table(content, content.without_full, "The same without M_T = all modalities", note)


def gains(content: Content) -> Table | None:
    """Method - baseline for every metric, with bootstrap intervals where predictions are given."""
    if len(content.methods) < 2:
        return None
    columns, scale = metric_columns(content, content.gains), scale_of(content)
    rows = []
    for method in content.methods:
        if method == content.baseline:
            continue
        cells = [scale.stat(content.gains[method][name][key], True) for name, key, _ in columns]
        bounds = content.intervals.get(method)
        if bounds:
            cells = [
                f"{scale.number(bounds[name][key].difference, True)} "
                f"[{scale.number(bounds[name][key].low)}, {scale.number(bounds[name][key].high)}]"
                for name, key, _ in columns
            ]
        rows.append([method, *cells])
    note = "Mean ± deviation over seeds, paired by seed."
    if content.intervals:
        note = (
            "[95 % interval]: paired bootstrap over test examples, seeds averaged; it leaves out seed noise. That of "
            "R, P best and R best is approximate and allows for the bias of an extreme over cells (docs/study.md)."
        )
    return Table(f"Difference to {content.baseline}", ["Method", *(c for *_, c in columns)], rows, note)


def ratios(content: Content) -> Table | None:
    """R of each method over R of the baseline, overall and per slice; with R corrected for chance."""
    scale, names = scale_of(content), list(next(iter(content.ratios.values())))
    rows = []
    for method in content.methods:
        cells = [_ratio(content.ratios[method][name]["robustness"]) for name in names]
        if content.corrected:
            cells.append(scale.stat(content.corrected[method]))
        rows.append([method, *cells])
    columns = ["Method", *(f"{SLICE_NAMES[name]} R ratio" for name in names)]
    note = f"R ratio: R(method) / R({content.baseline}), mean of the ratios of each seed."
    if content.corrected:
        columns.append("R corrected")
        note += f" R corrected for chance: (R − c) / (1 − c) with c = {scale.number(content.chance)}."
    return Table("Robustness against the baseline and against chance", columns, rows, note)


def cells_used(content: Content) -> Table:
    """How many training sets and cells each slice has."""
    rows = [[SLICE_NAMES[name], str(len(one.evaluated)), str(one.cells)] for name, one in content.slices.items()]
    note = "Training sets without a cell in a slice are left out of it, not counted as zero."
    return Table("Cells used", ["Slice", "Training sets", "Cells"], rows, note)


def best_eval(content: Content) -> Table:
    """The best M_E of each M_T (the paper's Table 2)."""
    scale, best = scale_of(content), views.best_eval(content.main)
    rows = [
        [train, *(f"{best[m][train][0]} ({scale.number(best[m][train][1].mean)})" for m in content.methods)]
        for train in content.train_subsets
    ]
    note = "The evaluation set with the highest mean score over seeds, and that score."
    return Table("Best M_E for each M_T", ["Trained on", *content.methods], rows, note)


def matched(content: Content) -> Table:
    """M_T = M_E of each method, against reference rows where given (the paper's Table 3)."""
    scale, references = scale_of(content), content.meta.get("reference_rows") or ()
    found = views.matched_against(content.main, references)
    subsets = views.subsets_in_order({s for row in found for s in row["scores"]}, content.modalities)
    rows = [[row["name"], *_cells(row["scores"], subsets, scale)] for row in found]
    note = f"References, as given: {listed(str(row['name']) for row in references)}." if references else ""
    return Table("Trained and evaluated on the same set", ["Method", *subsets], rows, note)


def matched_by_pretraining(content: Content) -> Table | None:
    """Scores of M_T = M_E for every pretraining set; None if there is only one."""
    found = views.matched_scores(views.table_results(content.results, content.meta.get("alpha")))
    if len({pretrain for sets in found.values() for pretrain in sets}) < 2:
        return None
    scale, subsets = scale_of(content), all_subsets(content.modalities)
    rows = [
        [method, pretrain or "–", *_cells(cells, subsets, scale)]
        for method, sets in found.items()
        for pretrain, cells in sets.items()
    ]
    return Table("M_T = M_E by pretraining modalities", ["Method", "Pretrained on", *subsets], rows)


def provenance(content: Content) -> Table:
    """What each row of Table 1 was made of: pretraining set, seeds, weight of the interpolation."""
    rows = []
    for method in content.methods:
        runs = content.of_main(method)
        alpha = "–" if runs[0].alpha is None else f"{runs[0].alpha:g}"
        rows.append([method, runs[0].pretrain or "–", ", ".join(str(r.seed) for r in runs), alpha])
    return Table("Rows of the tables", ["Method", "Pretrained on", "Seeds", "Alpha"], rows)


def examples(content: Content) -> Table | None:
    """Number of evaluation examples of each M_E, over all results that count them."""
    counts: dict[str, set[int]] = {}
    for r in content.results:
        for row in r.counts.values():
            for evaluated, n in row.items():
                counts.setdefault(evaluated, set()).add(n)
    if not counts:
        return None
    ordered = views.subsets_in_order(counts, content.modalities)
    rows = [[subset, " to ".join(str(n) for n in _ends(counts[subset]))] for subset in ordered]
    note = "Examples with some modality of the evaluation set present."
    return Table("Examples per cell", ["Evaluated on", "Examples"], rows, note)


def stages(content: Content) -> Table | None:
    """How long each stage took."""
    given = content.meta.get("stages") or []
    if not given:
        return None
    rows = [[str(s["name"]), duration(s.get("seconds")), str(s.get("status", "–"))] for s in given]
    total = sum(s.get("seconds") or 0 for s in given)
    return Table("Time per stage", ["Stage", "Time", "Status"], [*rows, ["Total", duration(total), "–"]])


def goodput(content: Content) -> Table | None:
    """What the seconds of the training stages went into."""
    given = [s for s in content.meta.get("stages") or [] if (s.get("goodput") or {}).get("step")]
    if not given:
        return None
    kinds = list(given[0]["goodput"])
    rows = [[str(s["name"]), *(f"{s['goodput'].get(kind, 0.0):.1f}" for kind in kinds)] for s in given]
    note = (
        "Seconds over all sessions. data: waiting for batches; save: while training waited for it; lost: after the "
        "last checkpoint of a session that was cut off; other: evaluation, loading, writing."
    )
    return Table("Where the time went", ["Stage", *kinds], rows, note)


def extra(content: Content) -> list[Table]:
    """Extra tables of the caller, cell by cell as text."""
    given = content.meta.get("accuracy_tables") or []
    return [
        Table(str(t["title"]), [str(c) for c in t["columns"]], [[str(v) for v in row] for row in t["rows"]])
        for t in given
    ]


def duration(seconds: float | None) -> str:
    """`75.2` -> "1 min 15 s"."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _metric_table(content: Content, table: views.Table, title: str, note: str) -> Table:
    columns, scale = metric_columns(content, table), scale_of(content)
    methods, bold = list(table), set()
    for place, (name, key, _) in enumerate(columns, start=1):
        means = [table[method][name][key].mean for method in methods]
        if len(set(means)) > 1:
            bold |= {(row, place) for row, mean in enumerate(means) if mean == max(means)}
    rows = [[m, *(scale.stat(table[m][name][key]) for name, key, _ in columns)] for m in methods]
    return Table(title, ["Method", *(label for *_, label in columns)], rows, note, frozenset(bold))


def _cells(stats: dict[str, views.Stat], subsets: list[str], scale) -> list[str]:
    return [scale.stat(stats[subset]) if subset in stats else "–" for subset in subsets]


def _ratio(stat: views.Stat) -> str:
    if not math.isfinite(stat.mean):
        return "–"
    return f"{stat.mean:.2f}" + (f" ± {stat.sd:.2f}" if math.isfinite(stat.sd) else "")


def _ends(numbers: set[int]) -> list[int]:
    return sorted({min(numbers), max(numbers)})
