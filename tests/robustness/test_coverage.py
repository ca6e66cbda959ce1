"""How often the interval of a difference holds the true one, simulated; `python tests/robustness/test_coverage.py`."""

import numpy as np
import pytest

from mmr_jax.robustness import Predictions, all_subsets, paired_bootstrap
from mmr_jax.robustness.metrics import KEYS, over_training_sets

MODALITIES = ["a", "b", "c"]
SUBSETS = all_subsets(MODALITIES)
CLEAR, TIED = [0.5] + [0.8] * 6, [0.5] * 7
# True accuracy of each M_E (for every M_T alike) of the baseline and of the method.
WORLDS = {
    "clear minima": (CLEAR, CLEAR),
    "spread": (np.linspace(0.3, 0.9, 7), np.linspace(0.33, 0.85, 7)),
    "both tied": (TIED, TIED),
    "two tied against one": (np.linspace(0.4, 0.8, 7), [0.4, 0.4, *np.linspace(0.4, 0.8, 7)[2:]]),
    "all tied against spread": (np.linspace(0.4, 0.7, 7), TIED),
    "all tied against one": (CLEAR, TIED),
}


def coverage(world, repetitions, n=300, seed=0):
    """Share of repetitions in which the interval holds the truth, per key of the overall slice."""
    rng, inside = np.random.default_rng(seed), np.zeros(4)
    minima = [np.full(7, np.min(a)) for a in WORLDS[world]]
    means = [np.full(7, np.mean(a)) for a in WORLDS[world]]
    truth = np.subtract(*[over_training_sets(p, r) for p, r in zip(means, minima, strict=True)][::-1])
    for _ in range(repetitions):
        labels = rng.integers(0, 4, n)
        files = [f for name, a in zip("AB", WORLDS[world], strict=True) for f in _files(name, a, labels, rng)]
        found = paired_bootstrap(files, "A", MODALITIES, replicates=300)["B"]["overall"]
        inside += [found[key].low <= t <= found[key].high for key, t in zip(KEYS, truth, strict=True)]
    return dict(zip(KEYS, inside / repetitions, strict=True))


def _files(name, accuracies, labels, rng):
    """Cells are right independently of each other: the worst case for an extreme over them."""
    n, valid = len(labels), np.ones((7, len(labels)), bool)
    for train in SUBSETS:
        right = rng.random((7, n)) < np.asarray(accuracies)[:, None]
        scores = np.eye(4, dtype=np.float32)[np.where(right, labels, (labels + 1) % 4)]
        yield Predictions(name, train, SUBSETS, scores, valid, labels, np.arange(n))


@pytest.mark.parametrize("world", ["clear minima", "all tied against one"])
def test_the_interval_of_an_extreme_holds_the_truth(world):
    """The percentile interval of R holds the truth in 2 % of 300 repetitions of "all tied against one"."""
    found = coverage(world, 40)
    assert found["performance"] >= 0.85 and found["robustness"] >= 0.8 and found["robustness_best"] >= 0.7, found


if __name__ == "__main__":
    for world in WORLDS:
        print(world, {key: f"{100 * share:.0f} %" for key, share in coverage(world, 400).items()})
