"""Performance and robustness over modality subsets (McKinzie et al. 2023, section 3, Eq. 3-6).

p(M_T, M_E) is the score, higher is better, of the model trained on M_T and evaluated on M_E:
P(M_T) = mean over M_E, R(M_T) = minimum over M_E (Eq. 3, 4); best = maximum over M_T (Eq. 5);
overall = mean over M_T (Eq. 6). Means over M_T include M_T = M.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmr_jax.errors import UserError, nearest
from mmr_jax.robustness.subsets import all_subsets, parse_subset

Scores = Mapping[str, Mapping[str, float]]
KEYS = ("performance", "robustness", "performance_best", "robustness_best")

SLICES: dict[str, Callable[[frozenset, frozenset], bool]] = {
    "overall": lambda train, evaluated: True,
    "missing": lambda train, evaluated: evaluated < train,
    "added": lambda train, evaluated: train < evaluated,
    "transfer": lambda train, evaluated: train.isdisjoint(evaluated),
}


@dataclass(frozen=True)
class SliceSummary:
    """Eq. 3-6 on one slice; the `_of` fields are keyed by M_T and leave out training sets without a cell."""

    performance: float
    robustness: float
    performance_best: float
    robustness_best: float
    performance_of: dict[str, float]
    robustness_of: dict[str, float]
    evaluated: dict[str, list[str]]

    @property
    def cells(self) -> int:
        """Number of cells (M_T, M_E) that entered."""
        return sum(len(names) for names in self.evaluated.values())

    def four(self) -> dict[str, float]:
        """The four numbers of Eq. 5 and 6."""
        return {key: getattr(self, key) for key in KEYS}


def slice_mask(name: str, train_subsets: Sequence[str], eval_subsets: Sequence[str]) -> np.ndarray:
    """Bool [T, E]: the cells of one slice."""
    inside = SLICES[name]
    evaluated = [frozenset(parse_subset(subset)) for subset in eval_subsets]
    rows = [frozenset(parse_subset(subset)) for subset in train_subsets]
    return np.array([[inside(row, column) for column in evaluated] for row in rows], bool)


def per_training_set(scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(M_T) and R(M_T) (Eq. 3, 4): `[..., T, E]` and a cell mask `[T, E]` -> two arrays `[..., T']`.

    T' counts only the rows with a cell: an empty slice is undefined, not zero.
    """
    rows = mask.any(axis=1)
    mask, scores = mask[rows], scores[..., rows, :]
    performance = np.where(mask, scores, 0.0).sum(-1) / mask.sum(-1)
    return performance, np.where(mask, scores, np.inf).min(-1)


def over_training_sets(performance: np.ndarray, robustness: np.ndarray) -> np.ndarray:
    """Eq. 5 and 6: two arrays `[..., T']` -> `[..., 4]` in the order of KEYS."""
    parts = (performance.mean(-1), robustness.mean(-1), performance.max(-1), robustness.max(-1))
    return np.stack(parts, axis=-1)


def score_matrix(scores: Scores, modalities: Sequence[str], train_subsets: Sequence[str] | None = None):
    """`scores[train][eval]` -> float64 [T, E], rows `train_subsets` (None: all), columns all subsets.

    UserError names the first unknown key, missing cell or value that is not a finite number.
    """
    evaluated = all_subsets(modalities)
    rows = evaluated if train_subsets is None else list(train_subsets)
    if not rows:
        raise UserError("no training subset is given; at least one is needed")
    _check_keys(rows, evaluated, "train_subsets")
    _check_keys(scores, evaluated, "scores")
    for row in rows:
        _check_keys(scores.get(row, {}), evaluated, f"scores[{row!r}]")
    return np.array([[_cell(scores, row, column) for column in evaluated] for row in rows], np.float64)


def analyse(
    scores: Scores,
    modalities: Sequence[str],
    train_subsets: Sequence[str] | None = None,
    include_full: bool = True,
) -> dict[str, SliceSummary]:
    """Eq. 3-6 with P and R of each M_T and the cells used, for "overall" and each slice that has a cell.

    train_subsets: the training sets that exist (None: all are required).
    include_full: False leaves M_T = M out of the means, as in the "6 settings" of the paper's Table 2.
    """
    evaluated = all_subsets(modalities)
    rows = evaluated if train_subsets is None else list(train_subsets)
    matrix = score_matrix(scores, modalities, rows)
    if not include_full:
        matrix = matrix[[row != evaluated[-1] for row in rows]]
        rows = [row for row in rows if row != evaluated[-1]]
    masks = {name: slice_mask(name, rows, evaluated) for name in SLICES}
    return {name: _summary(matrix, mask, rows, evaluated) for name, mask in masks.items() if mask.any()}


def summarize(scores: Scores, modalities: Sequence[str]) -> dict:
    """The paper's metrics of a complete matrix `scores[train][eval]` (Eq. 3-6).

    Returns performance, robustness, performance_best and robustness_best, and under "missing", "added"
    and "transfer" a dict with the same four keys, empty where the slice has no cell. Subsets are written
    sorted and joined by "+". Raises ValueError naming a missing cell, an unknown or unsorted key, a NaN.
    """
    found = analyse(scores, modalities)
    slices = {name: found[name].four() if name in found else {} for name in SLICES if name != "overall"}
    return {**found["overall"].four(), **slices}


def chance_corrected(value: float, chance: float) -> float:
    """(value - chance) / (1 - chance): 0 at chance level, 1 at a perfect score; both in [0, 1]."""
    if not 0 <= chance < 1:
        raise UserError(f"chance is {chance}; a level in [0, 1) is expected")
    return (value - chance) / (1 - chance)


def _summary(matrix, mask, rows, evaluated) -> SliceSummary:
    performance, robustness = per_training_set(matrix, mask)
    used = [row for row, line in zip(rows, mask, strict=True) if line.any()]
    cells = [[name for name, inside in zip(evaluated, line, strict=True) if inside] for line in mask if line.any()]
    return SliceSummary(
        *map(float, over_training_sets(performance, robustness)),
        performance_of=dict(zip(used, performance.tolist(), strict=True)),
        robustness_of=dict(zip(used, robustness.tolist(), strict=True)),
        evaluated=dict(zip(used, cells, strict=True)),
    )


def _check_keys(keys, known: Sequence[str], where: str) -> None:
    for key in keys:
        if key in known:
            continue
        ordered = "+".join(sorted(str(key).split("+")))
        if ordered in known:
            raise UserError(f"{where}[{key!r}]: subsets are written sorted, here {ordered!r}")
        raise UserError(f"{where}[{key!r}] is no subset of these modalities{nearest(str(key), known)}")


def _cell(scores: Scores, train: str, evaluated: str) -> float:
    name = f"scores[{train!r}][{evaluated!r}]"
    if evaluated not in scores.get(train, {}):
        raise UserError(f"{name} is missing")
    try:
        value = float(scores[train][evaluated])
    except (TypeError, ValueError):
        raise UserError(f"{name} is {scores[train][evaluated]!r}; a number is expected") from None
    if not math.isfinite(value):
        raise UserError(f"{name} is {value}; a finite number is expected")
    return value
