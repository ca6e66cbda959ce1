from dataclasses import replace

import numpy as np
import pytest

from mmr_jax.errors import UserError
from mmr_jax.robustness import Predictions, all_subsets, paired_bootstrap, summarize, wilson
from mmr_jax.robustness.intervals import _weights
from mmr_jax.robustness.results import to_results

MODALITIES = ["audio", "video"]
SUBSETS = all_subsets(MODALITIES)


def made(method, strength, seed=0, n=120, multi=False, valid=None):
    """One file per M_T; the same noise for all methods, so that they are paired."""
    labels = np.arange(n) % 3
    files = []
    for i, train in enumerate(SUBSETS):
        rng = np.random.default_rng([seed, i])
        scores = rng.normal(size=(3, n, 3)) + strength * (np.arange(3) == labels[:, None])
        given = (np.arange(3) == labels[:, None]).astype(int) if multi else labels
        seen = np.ones((3, n), bool) if valid is None else valid
        files.append(Predictions(method, train, SUBSETS, scores, seen, given, np.arange(n), seed=seed))
    return files


def test_wilson_against_published_values():
    # Newcombe (1998), table I, method 3: 81/263, 15/148, 0/20, 1/29.
    expected = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605)}
    expected |= {(0, 20): (0.0000, 0.1611), (1, 29): (0.0061, 0.1718)}
    for (successes, n), bounds in expected.items():
        assert wilson(successes, n) == pytest.approx(bounds, abs=6e-5)
    assert wilson(20, 20) == pytest.approx((1 - 0.1611, 1.0), abs=6e-5)


@pytest.mark.parametrize("bad", [(5, 4), (-1, 4), (0, 0)])
def test_wilson_refuses(bad):
    with pytest.raises(UserError):
        wilson(*bad)


@pytest.mark.parametrize("metric", ["top1", "map"])
def test_replicates_equal_resampling_by_hand(metric):
    """Every replicate, seeds averaged, equals scoring copies of the drawn examples."""
    valid = np.random.default_rng(5).uniform(size=(3, 40)) < 0.8
    multi = metric == "map"
    files = [p for m, s in (("a", 0.2), ("b", 1.0)) for seed in (0, 1) for p in made(m, s, seed, 40, multi, valid)]
    found = paired_bootstrap(files, "a", MODALITIES, metric, replicates=8, seed=3)
    differences = []
    for weights in np.concatenate(list(_weights(40, 8, 3))):
        pick = np.repeat(np.arange(40), weights.astype(int))
        copies = [
            Predictions(
                p.method,
                p.train,
                p.eval,
                p.scores[:, pick],
                p.valid[:, pick],
                p.labels[pick],
                pick,
                seed=p.seed,
            )
            for p in files
        ]
        values = {"a": [], "b": []}
        for result in to_results(copies, metric):
            s = summarize(result.scores, MODALITIES)
            values[result.method].append([s["performance"], s["robustness"], s["transfer"]["robustness"]])
        differences.append(np.mean(values["b"], axis=0) - np.mean(values["a"], axis=0))
    low, high = np.quantile(differences, [0.025, 0.975], axis=0)
    ours = [found["b"]["overall"][k] for k in ("performance", "robustness")]
    ours.append(found["b"]["transfer"]["robustness"])
    difference, mean = np.array([i.difference for i in ours]), np.mean(differences, axis=0)
    # P: percentiles. R: as far from the difference, and from the difference without the bias of exact ties.
    other = np.where([True, False, False], mean, difference - (mean - difference) / (2**0.5 - 1))
    centre = np.where([True, False, False], mean, difference)
    np.testing.assert_allclose([i.low for i in ours], np.minimum(centre, other) + low - mean, atol=1e-6)
    np.testing.assert_allclose([i.high for i in ours], np.maximum(centre, other) + high - mean, atol=1e-6)


def test_difference_is_that_of_the_tables_and_the_baseline_differs_by_nothing():
    files = made("base", 0.5) + made("better", 1.5)
    found = paired_bootstrap(files, "base", MODALITIES, replicates=200)
    s = {r.method: summarize(r.scores, MODALITIES) for r in to_results(files, "top1")}
    for key in ("performance", "robustness_best"):
        overall = found["better"]["overall"][key]
        assert overall.difference == pytest.approx(s["better"][key] - s["base"][key], abs=1e-6)
        assert overall.low < overall.difference < overall.high and overall.low > 0
        assert vars(found["base"]["overall"][key]) == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_interval_has_the_width_of_the_normal_approximation():
    """For one modality P is an accuracy, and the paired difference a mean of n values in {-1, 0, 1}."""
    rng, n = np.random.default_rng(0), 500
    labels = rng.integers(0, 2, n)
    files, right = [], []
    for name, p in (("a", 0.6), ("b", 0.8)):
        right.append(rng.uniform(size=n) < p)
        scores = np.eye(2)[np.where(right[-1], labels, 1 - labels)][None]
        files.append(Predictions(name, "x", ["x"], scores, np.ones((1, n), bool), labels, np.arange(n)))
    found = paired_bootstrap(files, "a", ["x"], replicates=4000)["b"]["overall"]["performance"]
    change = right[1].astype(float) - right[0]
    half = 1.96 * change.std() / n**0.5
    assert found.difference == pytest.approx(change.mean(), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((change.mean() - half, change.mean() + half), abs=0.1 * half)


def test_same_seed_same_interval_and_missing_files_are_named():
    files = made("a", 0.5) + made("b", 0.6)
    first, second = (paired_bootstrap(files, "a", MODALITIES, replicates=50, seed=s) for s in (1, 1))
    assert first == second
    assert paired_bootstrap(files, "a", MODALITIES, replicates=50, seed=2) != first
    with pytest.raises(UserError, match=r"'b', seed 0, has no predictions for train 'audio\+video'"):
        paired_bootstrap(files[:-1], "a", MODALITIES)
    with pytest.raises(UserError, match="baseline 'c'"):
        paired_bootstrap(files, "c", MODALITIES)
    with pytest.raises(UserError, match="two predictions"):
        paired_bootstrap([*files, made("a", 1)[0]], "a", MODALITIES)


@pytest.mark.parametrize("change", ["order", "number", "labels"])
def test_files_of_other_examples_are_refused(change):
    rows = {"order": np.arange(120)[::-1], "number": np.arange(100), "labels": np.arange(120)}[change]
    other = [
        replace(
            p,
            method="b",
            scores=p.scores[:, rows],
            valid=p.valid[:, rows],
            ids=p.ids[rows],
            labels=p.labels[rows] + (change == "labels"),
        )
        for p in made("b", 0.6)
    ]
    with pytest.raises(UserError, match="'b', seed 0, train 'audio': their (ids|labels) differ from those of 'a'"):
        paired_bootstrap(made("a", 0.5) + other, "a", MODALITIES)
