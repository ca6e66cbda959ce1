"""All numbers of a report, computed once; every output format reads them from here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmr_jax.errors import UserError, nearest
from mmr_jax.robustness import views
from mmr_jax.robustness.intervals import Interval, paired_bootstrap
from mmr_jax.robustness.metrics import SliceSummary, chance_corrected
from mmr_jax.robustness.results import Predictions, Result, check_complete, metric_of, multi_hot
from mmr_jax.robustness.retrieval import averages
from mmr_jax.robustness.subsets import all_subsets, check_modalities, modalities_of, parse_subset

META = (
    *("title", "modalities", "metric", "chance", "config", "config_diff", "versions", "stages", "notes"),
    *("alpha", "reference_rows", "accuracy_tables", "train_subsets", "baseline", "retrieval", "reconstructions"),
)
BASELINE = "finetune"


@dataclass(frozen=True)
class Content:
    """Numbers of a report. `main` holds the results of Table 1: one alpha, the largest pretraining set."""

    meta: Mapping
    modalities: list[str]
    train_subsets: list[str]
    metric: str | None
    chance: float | None
    baseline: str
    results: list[Result]
    main: list[Result]
    left_out: list[str]
    summaries: dict[str, dict[int, dict[str, SliceSummary]]]
    table: views.Table
    without_full: views.Table
    summary_without_full: dict[str, SliceSummary]
    gains: views.Table
    ratios: views.Table
    matrices: dict[str, dict[str, dict[str, views.Stat]]]
    curves: dict[str, list]
    corrected: dict[str, views.Stat]
    intervals: dict[str, dict[str, dict[str, Interval]]]
    retrieval: dict[str, list[dict]]

    @property
    def methods(self) -> list[str]:
        """Methods of Table 1, in the order given."""
        return list(self.table)

    @property
    def slices(self) -> dict[str, SliceSummary]:
        """One summary per slice, for the cells that it counts (the same for every method)."""
        return next(iter(self.summaries[self.methods[0]].values()))

    @property
    def best(self) -> str:
        """The method with the highest overall R."""
        return max(self.methods, key=lambda method: self.table[method]["overall"]["robustness"].mean)

    def of_main(self, method: str) -> list[Result]:
        """Results of Table 1 of one method, one per seed."""
        return [r for r in self.main if r.method == method]


def build(
    results: Sequence[Result], meta: Mapping | None = None, predictions: Sequence[Predictions] | None = None
) -> Content:
    """Compute all that a report shows; UserError for a missing cell or an unknown key or name in `meta`."""
    meta = meta or {}
    for key in meta:
        if key not in META:
            raise UserError(f"meta[{key!r}] is unknown{nearest(key, META)}")
    if not results:
        raise UserError("no results to report")
    modalities = _modalities(results, meta)
    for row in meta.get("reference_rows") or ():
        for subset in set(row) - {"name"}:
            parse_subset(subset, modalities)
    widest = views.largest_pretraining(results)
    trains, left_out = _split(widest, meta, modalities)
    check_complete(results, modalities, trains)
    curves = [r for r in widest if r.method not in left_out]
    main = views.table_results(curves, meta.get("alpha"))
    found = views.summaries(main, modalities, trains)
    without = views.summaries(main, modalities, trains, include_full=False)
    baseline = _baseline(meta, found)
    table = views.metric_table(found)
    chance = _chance(meta, predictions)
    return Content(
        meta=meta,
        modalities=modalities,
        train_subsets=trains,
        metric=_metric(meta, predictions),
        chance=chance,
        baseline=baseline,
        results=list(results),
        main=main,
        left_out=left_out,
        summaries=found,
        table=table,
        without_full=views.metric_table(without),
        summary_without_full=next(iter(without[baseline].values())),
        gains=views.gain_table(found, baseline),
        ratios=views.ratio_table(found, baseline),
        matrices=views.mean_matrix(main),
        curves=views.alpha_curves(curves, modalities, trains),
        corrected=_corrected(table, results, chance),
        intervals=_intervals(predictions, main, baseline, modalities, trains, meta),
        retrieval=averages(meta.get("retrieval") or []),
    )


def _baseline(meta: Mapping, methods) -> str:
    """The method that differences are taken to: the one that `meta` names, else fine-tuning, else the first."""
    if meta.get("baseline"):
        if meta["baseline"] not in methods:
            raise UserError(f"meta['baseline'] is {meta['baseline']!r}{nearest(meta['baseline'], methods)}")
        return meta["baseline"]
    return BASELINE if BASELINE in methods else next(iter(methods))


def _modalities(results: Sequence[Result], meta: Mapping) -> list[str]:
    if meta.get("modalities"):
        return sorted(check_modalities(meta["modalities"]))
    return modalities_of(e for r in results for row in r.scores.values() for e in row)


def _split(widest: Sequence[Result], meta: Mapping, modalities) -> tuple[list[str], list[str]]:
    """Training subsets of the study, and the methods whose pretraining was too narrow to have them all."""
    asked = meta.get("train_subsets") or {train for r in widest for train in r.scores}
    trains = views.subsets_in_order(asked, modalities)
    if not trains:
        raise UserError(f"the results hold no training subset of the modalities {modalities}")
    narrow = [r.method for r in widest if r.pretrain and any(train not in r.scores for train in trains)]
    left_out = list(dict.fromkeys(narrow))
    if len(left_out) == len(views.by_method(widest)):
        raise UserError(f"no method has all training subsets: {', '.join(trains)}")
    return trains, left_out


def _metric(meta: Mapping, predictions: Sequence[Predictions] | None) -> str | None:
    if meta.get("metric") or not predictions:
        return meta.get("metric")
    return metric_of(predictions)


def _chance(meta: Mapping, predictions: Sequence[Predictions] | None) -> float | None:
    """Chance level given, or of uniform guesses (top1), or of random ranks (map: mean share of positives)."""
    if meta.get("chance") is not None or not predictions:
        return meta.get("chance")
    classes = predictions[0].scores.shape[2]
    if _metric(meta, predictions) == "top1":
        return 1 / classes
    share = multi_hot(predictions[0].labels, classes).mean(0)
    return float(share[share > 0].mean())


def in_unit_interval(results: Sequence[Result]) -> bool:
    """Are all scores in [0, 1], so that they can be shown in percent and corrected for chance?"""
    values = [score for r in results for row in r.scores.values() for score in row.values()]
    return bool(values) and min(values) >= 0 and max(values) <= 1


def _corrected(table: views.Table, results: Sequence[Result], chance: float | None) -> dict[str, views.Stat]:
    if chance is None or not in_unit_interval(results):
        return {}
    stats = {method: slices["overall"]["robustness"] for method, slices in table.items()}
    return {m: views.Stat(chance_corrected(s.mean, chance), s.sd / (1 - chance), s.n) for m, s in stats.items()}


def _intervals(predictions, main, baseline, modalities, trains, meta) -> dict:
    """Bootstrap of the methods of Table 1 that have predictions; none if the baseline has no predictions."""
    keys = {(r.method, r.seed, r.pretrain, r.alpha) for r in main}
    used = [p for p in predictions or [] if (p.method, p.seed, p.pretrain, p.alpha) in keys]
    if not any(p.method == baseline for p in used):
        return {}
    return paired_bootstrap(used, baseline, modalities, _metric(meta, predictions), train_subsets=trains)


def jsonable(value):
    """Plain JSON values: named tuples and dataclasses as objects, NaN and infinity as null, keys as text."""
    if isinstance(value, views.Stat):
        return jsonable(value._asdict())
    if isinstance(value, Interval):
        return jsonable(vars(value))
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def numbers(content: Content) -> dict:
    """Everything in `content` as the JSON document report.json."""
    c = content
    return jsonable(
        {
            "meta": {key: value for key, value in c.meta.items() if key != "reconstructions"},
            "modalities": c.modalities,
            "subsets": all_subsets(c.modalities),
            "train_subsets": c.train_subsets,
            "metric": c.metric,
            "chance": c.chance,
            "baseline": c.baseline,
            "best": c.best,
            "seeds": {method: list(seeds) for method, seeds in c.summaries.items()},
            "alpha": {method: c.of_main(method)[0].alpha for method in c.methods},
            "pretrain": {method: c.of_main(method)[0].pretrain for method in c.methods},
            "left_out": c.left_out,
            "cells": {name: one.cells for name, one in c.slices.items()},
            "table": c.table,
            "without_full": c.without_full,
            "chance_corrected_robustness": c.corrected,
            "gain": c.gains,
            "ratio": c.ratios,
            "intervals": c.intervals,
            "matrix": c.matrices,
            "performance_vs_robustness": views.performance_vs_robustness(c.summaries),
            "by_overlap": views.by_overlap(c.main),
            "best_eval": views.best_eval(c.main),
            "matched_by_size": views.matched_by_size(views.table_results(c.results, c.meta.get("alpha"))),
            "matched_scores": views.matched_scores(views.table_results(c.results, c.meta.get("alpha"))),
            "matched_against": views.matched_against(c.main, c.meta.get("reference_rows") or ()),
            "retrieval": c.retrieval,
            "reconstructions": [
                {key: value for key, value in found.items() if key != "pictures"}
                for found in c.meta.get("reconstructions") or []
            ],
            "alpha_curves": {m: [{"alpha": a, **t} for a, t in curve] for m, curve in c.curves.items()},
        }
    )
