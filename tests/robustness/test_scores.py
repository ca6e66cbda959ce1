import os
from pathlib import Path

import numpy as np
import pytest

from mmr_jax.robustness import scores as S

REFERENCE = Path(os.environ.get("MMR_REFERENCE", Path(__file__).resolve().parents[3] / "shared/reference"))
FILE = REFERENCE / "metrics.npz"
needs_reference = pytest.mark.skipif(not FILE.exists(), reason=f"no reference in {REFERENCE}")


def close(found, expected):
    expected = np.asarray(expected, np.float64)
    limit = 1e-7 * max(np.nanmax(np.abs(expected)), 1e-30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit, equal_nan=True)


@needs_reference
def test_multi_label_reference():
    with np.load(FILE) as z:
        scores, targets = z["ml/scores"], z["ml/targets"]
        auc = S.roc_auc(scores, targets)
        close(S.average_precision(scores, targets), z["ml/ap"])
        close(S.mean_average_precision(scores, targets), z["ml/map"])
        close(auc, z["ml/auc"])
        close(np.nanmean(auc), z["ml/mauc"])
        close(S.d_prime(auc), z["ml/dprime"])
        close(np.nanmean(S.d_prime(auc)), z["ml/mean_dprime"])
        close(S.d_prime(np.nanmean(auc)), z["ml/dprime_of_mauc"])


@needs_reference
def test_single_label_reference():
    with np.load(FILE) as z:
        close(S.top1(z["cls/logits"], z["cls/labels"]), z["cls/top1"])
        close(S.topk(z["cls/logits"], z["cls/labels"], 5), z["cls/top5"])


@needs_reference
@pytest.mark.parametrize("ties", ["best", "worst"])
@pytest.mark.parametrize("way", ["row2col", "col2row"])
def test_retrieval_reference(way, ties):
    with np.load(FILE) as z:
        for name, end in (("ret", ""), ("ret_ties", f"_{ties}")):
            similarity = z[f"{name}/sim"] if way == "row2col" else z[f"{name}/sim"].T
            assert S.retrieval_ranks(similarity, ties).tolist() == z[f"{name}/{way}/ranks{end}"].tolist()
            for key, value in S.retrieval(similarity, ties=ties).items():
                close(value, z[f"{name}/{way}/{key}{end}"])


def slow_average_precision(scores, targets):
    """Sum over distinct thresholds of recall step x precision, by counting."""
    total, before, area = sum(targets), 0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        kept = [t for s, t in zip(scores, targets, strict=True) if s >= threshold]
        area += (sum(kept) - before) / total * sum(kept) / len(kept)
        before = sum(kept)
    return area


def slow_auc(scores, targets):
    pairs = [(p > n) + (p == n) / 2 for p in scores[targets > 0] for n in scores[targets == 0]]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_average_precision_and_auc_by_counting(levels):
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (40, 6)) / levels
    targets = (rng.uniform(size=(40, 6)) < 0.3).astype(int)
    ap, auc = S.average_precision(scores, targets), S.roc_auc(scores, targets)
    for c in range(6):
        assert ap[c] == pytest.approx(slow_average_precision(scores[:, c], targets[:, c]))
        assert auc[c] == pytest.approx(slow_auc(scores[:, c], targets[:, c]))


def test_weights_repeat_examples():
    """A weight of k is k copies of the example, and a weight of 0 leaves it out."""
    rng = np.random.default_rng(0)
    scores, targets = rng.integers(0, 6, 30) / 6, (rng.uniform(size=30) < 0.4).astype(int)
    weights = rng.integers(0, 4, (30, 5))
    found = S.weighted_average_precision(scores, targets, weights)
    for r in range(5):
        copies = np.repeat(np.arange(30), weights[:, r])
        assert found[r] == pytest.approx(slow_average_precision(scores[copies], targets[copies]))


def test_classes_without_positives_are_undefined():
    scores, targets = np.eye(3), np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert np.isnan(S.average_precision(scores, targets)).tolist() == [False, True, False]
    assert np.isnan(S.roc_auc(scores, targets)).tolist() == [False, True, True]
    assert S.mean_average_precision(scores, targets) == pytest.approx(1.0)
    assert np.isnan(S.mean_average_precision(scores, 0 * targets))


def test_top_k_by_sorting_and_ties_earn_nothing_for_free():
    rng = np.random.default_rng(1)
    scores, labels = rng.integers(0, 4, (200, 7)).astype(float), rng.integers(0, 7, 200)
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 3, 7):
        assert S.topk(scores, labels, k) == np.mean([labels[i] in order[i, :k] for i in range(200)])
    assert S.top1(scores, labels) == (scores.argmax(1) == labels).mean()
    assert S.top1(np.zeros((4, 4)), np.arange(4)) == 0.25


def test_hits_keep_leading_axes():
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=(3, 5, 4)), rng.integers(0, 4, 5)
    assert (S.hits(scores, labels) == (scores.argmax(-1) == labels)).all()


def test_d_prime_against_known_values():
    # Phi(1) = 0.8413447460685429, so d' = sqrt(2).
    assert S.d_prime(0.8413447460685429) == pytest.approx(2**0.5, rel=1e-9)
    assert S.d_prime(0.5) == 0
    assert S.d_prime(np.array([0.0, 1.0])).tolist() == [-np.inf, np.inf]


@pytest.mark.parametrize(
    "call",
    [
        lambda: S.top1(np.array([[np.nan, 0.0]]), np.array([0])),
        lambda: S.top1(np.zeros((2, 3)), np.array([0, 3])),
        lambda: S.top1(np.zeros((2, 3)), np.array([0.0, 1.0])),
        lambda: S.top1(np.zeros((2, 3)), np.array([0])),
        lambda: S.average_precision(np.zeros((2, 3)), np.zeros((3, 3))),
        lambda: S.retrieval_ranks(np.zeros((2, 3))),
        lambda: S.retrieval_ranks(np.zeros((2, 2)), ties="mean"),
    ],
)
def test_bad_input(call):
    with pytest.raises(ValueError):
        call()


def test_top1_of_several_labels_counts_a_hit_on_any():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.9, 0.0, 0.1]])
    labels = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]], np.float32)
    assert S.top1(scores, labels) == 0.5
