"""What a study hands to the report: score matrices (a CSV) and per-example predictions (npz files)."""

import csv
import io
import math
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmr_jax.errors import UserError, nearest
from mmr_jax.files import write_text
from mmr_jax.robustness.scores import mean_average_precision, top1
from mmr_jax.robustness.subsets import all_subsets, modalities_of, parse_subset, subset_name

COLUMNS = ("method", "pretrain", "seed", "alpha", "train", "eval", "score", "n")
NEEDED = ("train", "eval", "score")


@dataclass(frozen=True)
class Result:
    """One method with one seed: `scores[train][eval]` (higher is better), `counts[train][eval]` examples.

    pretrain: subset of modalities used in pretraining ("" if unsaid); alpha: weight of an interpolation.
    """

    method: str
    scores: dict[str, dict[str, float]]
    seed: int = 0
    pretrain: str = ""
    alpha: float | None = None
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Outputs of one model, trained on `train`, for S evaluation subsets, N examples, C classes.

    scores float32 [S, N, C] (probabilities or logits); valid bool [S, N], the examples of each cell;
    labels int [N], or {0, 1} [N, C] for several labels per example; ids [N].
    """

    method: str
    train: str
    eval: list[str]
    scores: np.ndarray
    valid: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    seed: int = 0
    pretrain: str = ""
    alpha: float | None = None

    def __post_init__(self):
        s, n, c = self.scores.shape if self.scores.ndim == 3 else (0, 0, 0)
        shapes = self.valid.shape == (s, n) and len(self.eval) == s and self.ids.shape == (n,)
        if not (s and n and shapes and self.labels.shape in ((n,), (n, c))):
            found = {k: getattr(self, k).shape for k in ("scores", "valid", "labels", "ids")}
            raise UserError(f"shapes do not fit scores [S, N, C], {len(self.eval)} eval subsets: {found}")

    def rows(self, subsets: Sequence[str]) -> list[int]:
        """Positions of evaluation subsets along the first axis."""
        for subset in subsets:
            if subset not in self.eval:
                raise UserError(f"{self.method!r}, train {self.train!r}: no predictions for eval {subset!r}")
        return [self.eval.index(subset) for subset in subsets]


def own_modalities(result: Result, modalities: Sequence[str]) -> list[str]:
    """Modalities whose cells a result must have: all, or those its narrower pretraining and cells name."""
    if not result.pretrain:
        return sorted(modalities)
    named = modalities_of([*result.scores, *(e for row in result.scores.values() for e in row)])
    return sorted(set(named) | (set(parse_subset(result.pretrain)) & set(modalities)))


def check_complete(
    results: Sequence[Result], modalities: Sequence[str], train_subsets: Sequence[str] | None = None
) -> None:
    """UserError naming the first missing cell of a result; `train_subsets` None requires every one."""
    for result in results:
        subsets = all_subsets(own_modalities(result, modalities))
        for train in subsets if train_subsets is None else [t for t in train_subsets if t in subsets]:
            for evaluated in subsets:
                if evaluated not in result.scores.get(train, {}):
                    cell = f"scores[{train!r}][{evaluated!r}] is missing"
                    raise UserError(f"{result.method!r}, seed {result.seed}: {cell}; modalities: {modalities}")


def read_matrix_csv(
    path: str | Path, modalities: Sequence[str] | None = None, train_subsets: Sequence[str] | None = None
) -> list[Result]:
    """Read a score matrix in long form: one line per cell, columns train, eval, score and any of COLUMNS.

    Subset names may be written in any order. UserError names the file and line of a bad value and the cell
    that is missing. modalities: None takes those named; train_subsets: the sets that were trained, None: all.
    """
    path, found = Path(path), {}
    for line, row in _csv_rows(path):
        try:
            _add_cell(found, row, modalities)
        except UserError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
    if not found:
        raise UserError(f"{path}: no cell, only a header; one line per (train, eval) is expected")
    results = list(found.values())
    named = modalities or modalities_of([e for r in results for row in r.scores.values() for e in row])
    try:
        check_complete(results, named, train_subsets)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return results


def write_matrix_csv(path: str | Path, results: Iterable[Result]) -> None:
    """Write results in the long form that `read_matrix_csv` reads; floats keep every digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in results:
        head = (r.method, r.pretrain, r.seed, "" if r.alpha is None else repr(float(r.alpha)))
        for train, row in r.scores.items():
            for evaluated, score in row.items():
                n = r.counts.get(train, {}).get(evaluated, "")
                writer.writerow((*head, train, evaluated, repr(float(score)), n))
    write_text(path, text.getvalue())


def save_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write one npz file (no pickle); text as fixed-width strings, alpha NaN where there is none."""
    p = predictions
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    arrays = dict(scores=np.asarray(p.scores, np.float32), valid=p.valid, labels=p.labels, ids=p.ids)
    names = dict(method=p.method, pretrain=p.pretrain, seed=p.seed, train=p.train)
    alpha = np.nan if p.alpha is None else p.alpha
    np.savez(path, eval=np.array(p.eval), alpha=alpha, **arrays, **names)


def read_predictions(folder: str | Path) -> list[Predictions]:
    """All *.npz files below a folder; UserError for a bad file, or files whose examples differ."""
    paths = sorted(Path(folder).rglob("*.npz"))
    if not paths:
        raise UserError(f"{folder}: no predictions (*.npz) here")
    found = [_read_npz(path) for path in paths]
    for path, one in zip(paths, found, strict=True):
        for key in ("ids", "labels"):
            if not np.array_equal(getattr(one, key), getattr(found[0], key)):
                raise UserError(f"{path}: its {key} differ from those of {paths[0]}; both must hold the same")
    return found


def multi_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels int [N] or {0, 1} [N, C] -> {0, 1} [N, C]."""
    return labels if labels.ndim == 2 else np.arange(classes) == labels[:, None]


def cell_score(predictions: Predictions, row: int, metric: str) -> float:
    """Score of one evaluation subset (a row of `scores`) over its valid examples."""
    kept = predictions.valid[row]
    cell = f"{predictions.method!r}: scores[{predictions.train!r}][{predictions.eval[row]!r}]"
    if not kept.any():
        raise UserError(f"{cell} has no valid example")
    scores, labels = predictions.scores[row][kept], predictions.labels[kept]
    if metric == "top1":
        return top1(scores, labels)
    if metric != "map":
        raise UserError(f"metric {metric!r} is unknown{nearest(metric, ('top1', 'map'))}")
    return mean_average_precision(scores, multi_hot(labels, scores.shape[1]))


def to_results(predictions: Iterable[Predictions], metric: str) -> list[Result]:
    """Score predictions by "top1" or "map"; one result per (method, pretrain, seed, alpha)."""
    found: dict[tuple, Result] = {}
    for one in predictions:
        key = (one.method, one.seed, one.pretrain, one.alpha)
        result = found.setdefault(key, Result(one.method, {}, one.seed, one.pretrain, one.alpha))
        if one.train in result.scores:
            raise UserError(f"{one.method!r}, seed {one.seed}: predictions for train {one.train!r} come twice")
        rows = range(len(one.eval))
        result.scores[one.train] = {one.eval[row]: cell_score(one, row, metric) for row in rows}
        result.counts[one.train] = {one.eval[row]: int(one.valid[row].sum()) for row in rows}
    return list(found.values())


def metric_of(predictions: Sequence[Predictions]) -> str:
    """How predictions are scored if nobody says: "map" where labels are [N, C], else "top1"."""
    return "map" if predictions[0].labels.ndim == 2 else "top1"


def load(
    path: str | Path,
    metric: str | None = None,
    modalities: Sequence[str] | None = None,
    train_subsets: Sequence[str] | None = None,
) -> tuple[list[Result], list[Predictions] | None]:
    """Results of a CSV file, or results and predictions of a folder.

    metric: for a folder; None takes `metric_of` its predictions.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; a CSV of scores or a folder of predictions is expected")
    if path.is_file():
        return read_matrix_csv(path, modalities, train_subsets), None
    predictions = read_predictions(path)
    metric = metric or metric_of(predictions)
    results = to_results(predictions, metric)
    check_complete(results, modalities or modalities_of(e for p in predictions for e in p.eval), train_subsets)
    return results, predictions


def _csv_rows(path: Path):
    """(line number, {column: text}) of each line; the header is checked."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # -sig: spreadsheets write a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip().lower() for name in next(reader, [])]
    for name in NEEDED:
        if name not in header:
            found = ", ".join(header) or "nothing"
            raise UserError(f"{path}, line 1: column {name!r} is missing; the header holds {found}")
    for name in header:
        if name not in COLUMNS or header.count(name) > 1:
            problem = "comes twice" if name in COLUMNS else f"is unknown{nearest(name, COLUMNS)}"
            raise UserError(f"{path}, line 1: column {name!r} {problem}")
    for row in reader:
        if not any(text.strip() for text in row):
            continue
        if len(row) != len(header):
            raise UserError(f"{path}, line {reader.line_num}: {len(row)} fields, {len(header)} expected")
        yield reader.line_num, dict(zip(header, (text.strip() for text in row), strict=True))


def _add_cell(found: dict, row: dict[str, str], modalities: Sequence[str] | None) -> None:
    train, evaluated = (subset_name(parse_subset(row[name], modalities)) for name in ("train", "eval"))
    pretrain = subset_name(parse_subset(row["pretrain"])) if row.get("pretrain") else ""
    alpha = _number(row, "alpha", float) if row.get("alpha") else None
    seed = _number(row, "seed", int) if row.get("seed") else 0
    key = (row.get("method") or "model", seed, pretrain, alpha)
    result = found.setdefault(key, Result(key[0], {}, seed, pretrain, alpha))
    if evaluated in result.scores.setdefault(train, {}):
        raise UserError(f"scores[{train!r}][{evaluated!r}] comes twice")
    result.scores[train][evaluated] = _number(row, "score", float)
    if row.get("n"):
        result.counts.setdefault(train, {})[evaluated] = _number(row, "n", int)


def _number(row: dict[str, str], name: str, kind: Callable[[str], float]) -> float:
    try:
        value = kind(row[name])
    except ValueError:
        raise UserError(f"{name} is {row[name]!r}; a number is expected") from None
    if not math.isfinite(value):
        raise UserError(f"{name} is {row[name]!r}; a finite number is expected")
    return value


def _read_npz(path: Path) -> Predictions:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no readable predictions file ({error})") from None
    try:
        alpha = float(arrays.pop("alpha", np.nan))
        return Predictions(
            **{key: arrays[key] for key in ("scores", "labels", "ids")},
            method=str(arrays["method"]),
            train=subset_name(parse_subset(str(arrays["train"]))),
            eval=[subset_name(parse_subset(str(name))) for name in arrays["eval"]],
            valid=arrays["valid"].astype(bool),
            seed=int(arrays.get("seed", 0)),
            pretrain=str(arrays.get("pretrain", "")),
            alpha=None if math.isnan(alpha) else alpha,
        )
    except KeyError as error:
        raise UserError(f"{path}: array {error.args[0]!r} is missing") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
