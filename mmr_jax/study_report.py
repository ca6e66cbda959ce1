"""From the records of a study's stages to its report."""

from collections.abc import Mapping

from mmr_jax import config as configs
from mmr_jax import methods
from mmr_jax.errors import UserError
from mmr_jax.robustness.intervals import wilson
from mmr_jax.robustness.report import print_summary, write_report
from mmr_jax.robustness.results import Predictions, Result, read_predictions
from mmr_jax.robustness.views import largest_set
from mmr_jax.study import Stage, Study
from mmr_jax.versions import versions


def report(study: Study, changes: Mapping) -> None:
    """Write report/ in the workdir and print the table; every evaluation must be finished."""
    (results, predictions), meta = collect(study), report_meta(study, changes)
    written = write_report(study.workdir / "report", results, meta, predictions)
    print_summary(results, meta, study.console)
    study.console.print(f"report: {written['html']}", markup=False, highlight=False, soft_wrap=True)


def _evaluations(study: Study) -> list[Stage]:
    return [s for s in study.stages() if s.kind == "evaluate"]


def collect(study: Study) -> tuple[list[Result], list[Predictions] | None]:
    """The results of all evaluations, and the predictions that intervals are made of if they are kept."""
    evaluations = _evaluations(study)
    for stage in evaluations:
        if not study.record(stage):
            raise UserError(f"{stage.name} is not finished in {study.workdir}: run mmr run (or mmr evaluate) first")
    return [r for stage in evaluations for r in _results(study, stage)], _predictions(study, evaluations)


def matrices(study: Study, method: str) -> list[dict[str, dict[str, float]]]:
    """scores[train][eval] of a method at the study's alpha, one per seed and pretraining set."""
    alpha = study.config.wise_ft.alpha if method in methods.INTERPOLATED else None
    stages = [s for s in study.stages() if s.kind == "evaluate" and s.method == method]
    return [r.scores for stage in stages for r in _results(study, stage) if r.alpha == alpha]


def _results(study: Study, stage: Stage) -> list[Result]:
    """One result per alpha of an evaluation stage, on the first test split."""
    found: dict = {}
    for row in study.record(stage)["scores"]:
        if row["split"] != study.config.study.test_splits[0]:
            continue
        alpha = row["alpha"]
        result = found.setdefault(alpha, Result(stage.method, {}, stage.seed, stage.pretrain, alpha))
        result.scores.setdefault(row["train"], {})[row["eval"]] = row["score"]
        result.counts.setdefault(row["train"], {})[row["eval"]] = row["n"]
    return list(found.values())


def _predictions(study: Study, evaluations: list[Stage]) -> list[Predictions] | None:
    """The saved predictions on the widest pretraining, for the bootstrap; None without them."""
    if not study.config.study.save_predictions:
        return None
    widest = largest_set(s.pretrain for s in evaluations)
    folders = [study.path(s) / "predictions" for s in evaluations if s.pretrain == widest]
    return [p for folder in folders for p in read_predictions(folder)]


def report_meta(study: Study, changes: Mapping) -> dict:
    """All that a report says besides the scores; see `write_report`."""
    alphas = dict.fromkeys(methods.INTERPOLATED, study.config.wise_ft.alpha)
    meta = {
        "title": f"Robustness study: {study.config.name}",
        "modalities": study.modalities,
        "train_subsets": study.train_subsets,
        "metric": study.metric,
        "config": configs.flatten(study.config),
        "config_diff": dict(changes),
        "versions": {**versions(), "device": _devices(study)},
        "stages": _timings(study),
        "notes": [*study.dataset.notes, *_method_notes(study), *_unreadable(study), *_unfinished(study)],
        "alpha": {m: a for m, a in alphas.items() if m in study.config.study.methods},
        "accuracy_tables": _accuracy_tables(study, _evaluations(study)),
        "retrieval": [{"pretrain": s.pretrain, "seed": s.seed, **r} for s, r in _finished(study, "retrieve")],
        "reconstructions": [_reconstruction(study, s, r) for s, r in _finished(study, "reconstruct")],
    }
    if study.metric == "top1":
        meta["chance"] = 1.0 / len(study.dataset.class_names)
    return meta


def _finished(study: Study, kind: str) -> list[tuple[Stage, dict]]:
    """(stage, record) of the finished stages of a kind."""
    records = [(s, study.record(s)) for s in study.stages() if s.kind == kind]
    return [(s, r) for s, r in records if r]


def _reconstruction(study: Study, stage: Stage, record: dict) -> dict:
    """The record of a reconstruct stage with its pictures."""
    folder = study.path(stage) / "pictures"
    pictures = [{"title": e["title"], "png": (folder / e["picture"]).read_bytes()} for e in record["examples"]]
    kept = {k: record[k] for k in ("split", "normalized", "errors")}
    return {"pretrain": stage.pretrain, "seed": stage.seed, **kept, "pictures": pictures}


def _unreadable(study: Study) -> list[str]:
    """What could not be read, by stage (of one that was resumed: since it was)."""
    records = [(stage.name, (study.record(stage) or {}).get("unreadable")) for stage in study.stages()]
    return [f"{name}: {n['lost']:,} of {n['read']:,} examples could not be read." for name, n in records if n]


def _unfinished(study: Study) -> list[str]:
    """What the report lacks because its stage has not run; evaluations are always there."""
    kinds = ("retrieve", "reconstruct")
    lacking = [s.name for s in study.stages() if s.kind in kinds and not study.record(s)]
    return [f"{name} has not run, so its section lacks it: mmr evaluate runs it." for name in lacking]


def _devices(study: Study) -> str:
    """What the stages ran on."""
    records = map(study.record, study.stages())
    return ", ".join(sorted({r["device"] for r in records if r and "device" in r}))


def _timings(study: Study) -> list[dict]:
    records = [(stage, study.record(stage)) for stage in study.stages()]
    return [
        {
            "name": s.name,
            "seconds": r["seconds"] if r else None,
            "status": "done" if r else "not run",
            "goodput": (r or {}).get("goodput"),
        }
        for s, r in records
    ]


def _method_notes(study: Study) -> list[str]:
    """What a reader of the tables must know about how methods were run."""
    full = "+".join(study.modalities)
    notes = []
    if {"masd", "masd_wise_ft"} & set(study.config.study.methods) and full in study.train_subsets:
        notes.append(f"masd with M_T = {full} is plain fine-tuning: no modality is left for the student.")
    if "modality_dropout" in study.config.study.methods:
        notes.append("modality_dropout with a single modality is plain fine-tuning: there is nothing to drop.")
    if study.config.finetune.select == "best":
        notes.append("Trained methods keep the step with the best validation score at M_E = M_T; test is never used.")
    return notes


def _accuracy_tables(study: Study, evaluations: list[Stage]) -> list[dict]:
    """Top-1 at M_E = M_T with Wilson intervals, a table per test split; the mean over seeds is taken first."""
    if study.metric != "top1":
        return []
    tables = []
    for split in study.config.study.test_splits:
        rows = _matched_rows(study, evaluations, split)
        title = f"Accuracy at M_E = M_T on {split}, with 95 % Wilson intervals over its examples"
        columns = ["method", "modalities", "mean over seeds", "interval", "examples", "seeds"]
        tables += [{"title": title, "columns": columns, "rows": rows}] if rows else []
    return tables


def _matched_rows(study: Study, evaluations: list[Stage], split: str) -> list[list]:
    found: dict[tuple, list] = {}
    for stage in evaluations:
        for row in study.record(stage)["scores"]:
            main = row["alpha"] in (None, study.config.wise_ft.alpha)
            if row["split"] == split and row["train"] == row["eval"] and main:
                found.setdefault((stage.pretrain, stage.method, row["train"]), []).append((row["score"], row["n"]))
    rows = []
    for (pretrain, method, train), scores in found.items():
        name = method if len(study.config.pretrain.modalities) == 1 else f"{method} (pretrained on {pretrain})"
        mean, n = sum(s for s, _ in scores) / len(scores), scores[0][1]
        low, high = wilson(round(mean * n), n)
        rows.append([name, train, f"{100 * mean:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %", n, len(scores)])
    return rows
