"""Uncertainty that comes from the test examples: Wilson intervals, and the paired bootstrap over examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mmr_jax.errors import UserError, nearest
from mmr_jax.robustness.metrics import KEYS, SLICES, over_training_sets, per_training_set, slice_mask
from mmr_jax.robustness.results import Predictions, multi_hot
from mmr_jax.robustness.scores import hits, weighted_average_precision
from mmr_jax.robustness.subsets import all_subsets

# Re-ranking 49 cells x C classes makes a replicate of mAP about a hundred times dearer than one of top-1.
REPLICATES = {"top1": 1000, "map": 200}
BLOCK = 4_000_000  # weights drawn at a time, bounds memory at about 50 MB
# The minimum over cells whose scores tie lies c * sd too low, and c * sd * sqrt(2) once they are resampled: what the
# bootstrap then shows is only sqrt(2) - 1 of the bias. With a clear minimum there is none to show.
TIED = 1 / (2**0.5 - 1)


@dataclass(frozen=True)
class Interval:
    """A difference of scores (method - baseline) on all examples, and its interval (see `paired_bootstrap`)."""

    difference: float
    low: float
    high: float


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion: (low, high) within [0, 1]."""
    if not 0 <= successes <= n or n < 1:
        raise UserError(f"{successes} successes out of {n}: 0 <= successes <= n and n >= 1 are expected")
    z = NormalDist().inv_cdf((1 + _level(level)) / 2)
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * ((share * (1 - share) + spread / 4) / n) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_bootstrap(
    predictions: Sequence[Predictions],
    baseline: str,
    modalities: Sequence[str],
    metric: str = "top1",
    train_subsets: Sequence[str] | None = None,
    replicates: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Interval]]]:
    """Interval of (method - baseline) for P, R and their best forms: `[method][slice][key]`.

    One resample of the test examples serves all methods, seeds and cells (M_T, M_E), so what they share
    cancels. Within a replicate the metrics of each seed are averaged. A cell uses its valid examples only.
    The interval says how the figures depend on the test examples, not on the training seed.
    `predictions` hold one file per (method, seed, train), all of the same examples. Defaults: 1000 replicates for top1,
    200 for map.

    P, a mean, has the percentile interval. R and the best forms are extremes of estimated cells, hence biased; their
    interval allows for any bias from none to what the bootstrap shows times `TIED`, the factor of exact ties: from both
    centres it reaches as far as the percentiles do from the mean of the replicates. So it always holds the difference
    itself, and is longer on the side where ties may hide. Coverage of the 95 % interval of R (R_best, and of R by plain
    percentiles), 7 x 7 independent cells, 300 examples, 400 repetitions of tests/robustness/test_coverage.py:

        clear minima in both methods                        94 (98, 95) %
        all cells tied in both                              96 (98, 99) %
        two cells tied against one clear minimum            87 (88, 69) %
        all cells tied against one clear minimum            93 (87,  1) %
        all cells tied against evenly spaced cells          80 (73,  1) %

    It is approximate: too short where one method has many nearly equal cells and the other has not.
    """
    _check_same_examples(predictions)
    rows = list(train_subsets) if train_subsets is not None else all_subsets(modalities)
    runs = _runs(predictions, rows, all_subsets(modalities), metric)
    if baseline not in runs:
        raise UserError(f"baseline {baseline!r} is no method of the predictions{nearest(baseline, runs)}")
    masks = {name: slice_mask(name, rows, all_subsets(modalities)) for name in SLICES}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    n = len(predictions[0].ids)
    whole = _values(runs, masks, np.ones((1, n), np.float32))
    blocks = [_values(runs, masks, w) for w in _weights(n, replicates or REPLICATES[metric], seed)]
    drawn = {method: np.concatenate([block[method] for block in blocks]) for method in runs}
    tail, found = (1 - _level(level)) / 2, {}
    for method in runs:
        difference = (whole[method] - whole[baseline])[0]
        found[method] = _named(masks, difference, *_bounds(difference, drawn[method] - drawn[baseline], tail))
    return found


def _bounds(difference: np.ndarray, drawn: np.ndarray, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) [slices, 4] of differences [slices, 4] and their replicates [r, slices, 4]."""
    low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
    bias = np.where(np.array(KEYS) == "performance", 0.0, np.nanmean(drawn, axis=0) - difference)
    return low - bias + np.minimum(-TIED * bias, 0), high - bias + np.maximum(-TIED * bias, 0)


def _check_same_examples(predictions: Sequence[Predictions]) -> None:
    """Weights are drawn per row, so row i must be the same example in every file."""
    for one in predictions:
        for key in ("ids", "labels"):
            if not np.array_equal(getattr(one, key), getattr(predictions[0], key)):
                first = predictions[0]
                raise UserError(
                    f"predictions of {one.method!r}, seed {one.seed}, train {one.train!r}: their {key} differ from "
                    f"those of {first.method!r}, seed {first.seed}, train {first.train!r}; a paired interval needs the "
                    "same examples in the same order"
                )


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; a share between 0 and 1 is expected, such as 0.95")
    return level


def _weights(n: int, replicates: int, seed: int):
    """Blocks [r, N] of how often each of N examples was drawn in N draws with replacement."""
    rng = np.random.default_rng(seed)
    per_block = max(1, BLOCK // n)
    for start in range(0, replicates, per_block):
        size = min(per_block, replicates - start)
        yield rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float32)


def _runs(predictions, rows, columns, metric) -> dict[str, list[Callable]]:
    """Per method one function per seed: weights [r, N] -> scores [r, T, E]."""
    if metric not in REPLICATES:
        raise UserError(f"metric {metric!r} is unknown{nearest(metric, REPLICATES)}")
    files: dict[tuple[str, int], dict[str, Predictions]] = {}
    for one in predictions:
        if files.setdefault((one.method, one.seed), {}).setdefault(one.train, one) is not one:
            raise UserError(f"{one.method!r}, seed {one.seed}, has two predictions for train {one.train!r}")
    scorer = {"top1": _top1_scorer, "map": _map_scorer}[metric]
    runs: dict[str, list[Callable]] = {}
    for (method, seed), by_train in files.items():
        for row in rows:
            if row not in by_train:
                raise UserError(f"{method!r}, seed {seed}, has no predictions for train {row!r}")
        runs.setdefault(method, []).append(scorer([by_train[row] for row in rows], columns))
    return runs


def _top1_scorer(files: list[Predictions], columns: list[str]) -> Callable:
    valid = np.stack([one.valid[one.rows(columns)] for one in files]).astype(np.float32)
    right = np.stack([_hits(one)[one.rows(columns)] for one in files]) * valid
    shape, n = valid.shape[:2], valid.shape[2]

    def score(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # no valid example drawn: NaN, left out of the quantiles
            return ((weights @ right.reshape(-1, n).T) / (weights @ valid.reshape(-1, n).T)).reshape(-1, *shape)

    return score


def _hits(one: Predictions) -> np.ndarray:
    # What stands at an example outside a cell is not looked at, so it may be anything, NaN too.
    return hits(np.where(one.valid[..., None], one.scores, 0), one.labels)


def _map_scorer(files: list[Predictions], columns: list[str]) -> Callable:
    def cell(one: Predictions, row: int, weights: np.ndarray) -> np.ndarray:
        kept, targets = one.valid[row], multi_hot(one.labels, one.scores.shape[2])
        scores, targets, weights = one.scores[row][kept], targets[kept], weights.T[kept]
        classes = range(scores.shape[1])
        values = [weighted_average_precision(scores[:, c], targets[:, c], weights) for c in classes]
        defined = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            return np.where(defined, values, 0).sum(0) / defined.sum(0)

    def score(weights: np.ndarray) -> np.ndarray:
        cells = [[cell(one, row, weights) for row in one.rows(columns)] for one in files]
        return np.moveaxis(np.array(cells), -1, 0)

    return score


def _values(runs, masks, weights) -> dict[str, np.ndarray]:
    """Per method [r, slices, 4]: the metrics of each seed, averaged over seeds."""
    found = {}
    for method, scorers in runs.items():
        matrices = [scorer(weights) for scorer in scorers]
        found[method] = np.mean([_metrics(matrix, masks) for matrix in matrices], axis=0)
    return found


def _metrics(matrix: np.ndarray, masks) -> np.ndarray:
    return np.stack([over_training_sets(*per_training_set(matrix, mask)) for mask in masks.values()], axis=1)


def _named(masks, difference, low, high) -> dict[str, dict[str, Interval]]:
    cells = np.stack([difference, low, high], axis=-1).tolist()
    return {name: {key: Interval(*cells[i][j]) for j, key in enumerate(KEYS)} for i, name in enumerate(masks)}
