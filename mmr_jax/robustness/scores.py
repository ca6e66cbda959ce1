"""Scores of predictions: top-k accuracy, average precision, ROC-AUC, d', retrieval ranks."""

from statistics import NormalDist

import numpy as np

from mmr_jax.errors import UserError


def hits(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Bool [..., N]: is the label of each example among the k best of `scores` [..., N, C]?

    A tie goes to the lower class index, so for k = 1 this is argmax: constant scores earn no free hit.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    _check_scores(scores)
    if labels.ndim != 1 or labels.shape[0] != scores.shape[-2] or labels.dtype.kind not in "iu":
        found = f"{labels.dtype} of shape {labels.shape}"
        raise UserError(f"labels are {found}; one integer for each of {scores.shape[-2]} examples is expected")
    if labels.size and not (labels.min() >= 0 and labels.max() < scores.shape[-1]):
        raise UserError(f"labels span {labels.min()}..{labels.max()}, but there are {scores.shape[-1]} classes")
    index = np.broadcast_to(labels[:, None], (*scores.shape[:-1], 1))
    true = np.take_along_axis(scores, index, axis=-1)
    earlier = np.arange(scores.shape[-1]) < index
    return ((scores > true) | ((scores == true) & earlier)).sum(-1) < k


def topk(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of examples whose label is among the k best classes; `scores` [N, C], `labels` int [N]."""
    return float(hits(scores, labels, k).mean())


def top1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of the best class; `scores` [N, C], `labels` int [N].

    With `labels` {0, 1} [N, C] the best class must be one of the example's (VGGSounder's "hit"); without any it misses.
    """
    if np.ndim(labels) == 2:
        return float((np.take_along_axis(labels, np.argmax(scores, -1)[:, None], axis=-1) > 0).mean())
    return topk(scores, labels, 1)


def weighted_average_precision(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of one class for R weightings of the examples at once, [R].

    scores [N], targets {0, 1} [N], weights [N, R] (how often each example counts). Sum over distinct
    thresholds of (recall step) x (precision); equal scores enter together. NaN where no positive has weight.
    Only thresholds that admit a positive move the recall, so the sums run over the blocks between those.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], targets[order] > 0
    group = np.cumsum(np.r_[False, ranked[1:] != ranked[:-1]])
    last = np.searchsorted(group, np.unique(group[positive]), side="right")
    if not last.size:
        return np.full(weights.shape[1], np.nan)
    order, positive, starts = order[: last[-1]], positive[: last[-1]], np.r_[0, last[:-1]]
    weight = weights[order]
    seen = np.cumsum(np.add.reduceat(weight, starts, axis=0), axis=0)
    gained = np.add.reduceat(weight * positive[:, None], starts, axis=0)
    precision = np.cumsum(gained, axis=0) / np.where(seen > 0, seen, 1)
    total = gained.sum(0)
    return np.where(total > 0, (gained * precision).sum(0) / np.where(total > 0, total, 1), np.nan)


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision per class, [C]: step-wise over distinct thresholds, NaN without positives.

    scores [N, C]; targets {0, 1} [N, C].
    """
    scores, targets = _check_targets(scores, targets)
    ones = np.ones((len(scores), 1))
    columns = range(scores.shape[1])
    return np.array([weighted_average_precision(scores[:, c], targets[:, c], ones)[0] for c in columns])


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """mAP: mean over the classes that have a positive (NaN if none has)."""
    per_class = average_precision(scores, targets)
    defined = per_class[~np.isnan(per_class)]
    return float(defined.mean()) if defined.size else float("nan")


def roc_auc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under the ROC curve per class, [C]; a tied pair counts 1/2; NaN without positives or negatives."""
    scores, targets = _check_targets(scores, targets)
    return np.array([_auc(scores[:, c], targets[:, c] > 0) for c in range(scores.shape[1])])


def d_prime(auc: np.ndarray | float) -> np.ndarray:
    """sqrt(2) x inverse normal CDF of the AUC, same shape; +-inf at 1 and 0, NaN stays NaN."""
    auc = np.asarray(auc, np.float64)
    values = [_d_prime(float(value)) for value in auc.ravel()]
    return np.array(values).reshape(auc.shape)


def retrieval_ranks(similarity: np.ndarray, ties: str = "worst") -> np.ndarray:
    """Rank (from 1) of the true match of each query, int [N]; rows are queries, candidate i matches query i.

    ties: "best" puts tied candidates after the match, "worst" before it (so collapsed embeddings fail).
    """
    similarity = np.asarray(similarity)
    _check_scores(similarity)
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise UserError(f"similarity has shape {similarity.shape}; a square matrix is expected")
    true = np.diagonal(similarity)[:, None]
    if ties == "best":
        return 1 + (similarity > true).sum(1)
    if ties == "worst":
        return (similarity >= true).sum(1)
    raise UserError(f"ties is {ties!r}; 'best' or 'worst' is expected")


def retrieval(similarity: np.ndarray, ks: tuple[int, ...] = (1, 5, 10), ties: str = "worst") -> dict[str, float]:
    """R@k as fractions under "R1", "R5", .. and "median_rank", for rows as queries."""
    ranks = retrieval_ranks(similarity, ties)
    recall = {f"R{k}": float((ranks <= k).mean()) for k in ks}
    return {**recall, "median_rank": float(np.median(ranks))}


def _auc(scores: np.ndarray, positive: np.ndarray) -> float:
    n_positive, n_negative = positive.sum(), (~positive).sum()
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2  # mean rank (from 1) of each group of equal scores
    rank_sum = middle[inverse][positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _d_prime(auc: float) -> float:
    if 0 < auc < 1:
        return 2**0.5 * NormalDist().inv_cdf(auc)
    return {0.0: -np.inf, 1.0: np.inf}.get(auc, np.nan)


def _check_scores(scores: np.ndarray) -> None:
    # A NaN compares false with everything, so it would count as a hit.
    if np.isnan(scores).any():
        raise UserError("scores hold NaN")


def _check_targets(scores, targets) -> tuple[np.ndarray, np.ndarray]:
    scores, targets = np.asarray(scores), np.asarray(targets)
    _check_scores(scores)
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise UserError(f"scores {scores.shape} and targets {targets.shape} are not two equal [N, C] arrays")
    return scores, targets
