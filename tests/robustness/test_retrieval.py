"""Retrieval across modalities against plain loops, and its chance levels against enumeration."""

import itertools
import math

import numpy as np
import pytest

from mmr_jax.robustness.retrieval import (
    KS,
    averages,
    class_chance,
    group_sizes,
    random_ranks,
    same_class,
    search,
    search_pairs,
)

RNG = np.random.default_rng(0)
N, NAMES = 23, ("audio", "image", "text")
SCALES = {"audio": 1, "image": 9, "text": 0.1}
EMBEDDINGS = {m: RNG.normal(size=(N, 4)).astype(np.float32) * scale for m, scale in SCALES.items()}
PRESENT = {"audio": np.arange(N) % 3 != 0, "image": np.arange(N) % 5 != 0, "text": np.ones(N, bool)}
LABELS = RNG.integers(0, 4, N)
TAGS = (RNG.random((N, 6)) < 0.2).astype(np.float32)  # some examples have no tag


def cosine(a, b):
    return float(np.dot(a, b) / math.sqrt(np.dot(a, a) * np.dot(b, b)))


def alike(labels, i, j):
    if labels.ndim == 1:
        return bool(labels[i] == labels[j])
    return i == j or any(x and y for x, y in zip(labels[i], labels[j], strict=True))


def by_hand(query, candidates, labels):
    """Loops over queries: rank of the partner and of the first example of the class."""
    rows = [i for i in range(N) if PRESENT[query][i] and PRESENT[candidates][i]]
    own, first = [], []
    for i in rows:
        order = sorted(rows, key=lambda j: -cosine(EMBEDDINGS[query][i], EMBEDDINGS[candidates][j]))
        own.append(order.index(i) + 1)
        first.append(next(r for r, j in enumerate(order, 1) if alike(labels, i, j)))
    return len(rows), own, first


@pytest.mark.parametrize("labels", [LABELS, TAGS], ids=["classes", "tags"])
def test_numbers_are_those_of_plain_loops(labels):
    rows = search_pairs(EMBEDDINGS, PRESENT, labels)
    assert [(r["query"], r["candidates"]) for r in rows] == list(itertools.permutations(NAMES, 2))
    for row in rows:
        n, own, first = by_hand(row["query"], row["candidates"], labels)
        assert row["n"] == n
        assert row["instance"]["median_rank"] == np.median(own)
        for k in KS:
            assert row["instance"][f"R{k}"] == pytest.approx(sum(r <= k for r in own) / n)
            assert row["class"][f"R{k}"] == pytest.approx(sum(r <= k for r in first) / n)


def test_a_pair_without_examples_has_no_numbers():
    nobody = {**PRESENT, "image": ~PRESENT["audio"]}
    rows = search_pairs(EMBEDDINGS, nobody, LABELS)
    empty = [r for r in rows if {r["query"], r["candidates"]} == {"audio", "image"}]
    assert empty == [{"query": a, "candidates": b, "n": 0} for a, b in (("audio", "image"), ("image", "audio"))]
    assert all("class_chance" in r for r in rows if r not in empty)


def test_collapsed_embeddings_find_nothing():
    found = search(np.ones((6, 6)), np.array([0, 0, 1, 1, 2, 2]))
    assert found["instance"]["R1"] == found["class"]["R1"] == 0 and found["instance"]["median_rank"] == 6
    assert search(np.ones((6, 6)), np.zeros(6, int))["class"]["R1"] == 1  # any candidate is right


@pytest.mark.parametrize("labels", [np.array([0, 1, 0, 2, 1, 0]), TAGS[:6]], ids=["classes", "tags"])
def test_chance_is_the_mean_over_all_orders(labels):
    n, found = len(labels), search(RNG.normal(size=(6, 6)), labels)
    orders = list(itertools.permutations(range(n)))
    for k in KS:
        own = np.mean([i in order[:k] for order in orders for i in range(n)])
        related = np.mean([any(alike(labels, i, j) for j in order[:k]) for order in orders for i in range(n)])
        assert found["instance_chance"][f"R{k}"] == pytest.approx(own)
        assert found["class_chance"][f"R{k}"] == pytest.approx(related)
    assert found["instance_chance"]["median_rank"] == np.median(range(1, n + 1))


def test_the_ceiling_is_reached_by_a_model_that_knows_the_class_alone():
    """Embeddings that are the class and a little noise of the query's own: partners are arbitrary within a class."""
    labels = np.repeat([0, 1, 2], [2, 7, 15])
    expected = search(np.eye(len(labels)), labels)["instance_class"]
    same = labels[:, None] == labels
    drawn = [search(same + 1e-3 * RNG.random(same.shape), labels)["instance"] for _ in range(3000)]
    for k in KS:
        assert expected[f"R{k}"] == pytest.approx(np.mean([min(k, n) / n for n in (2,) * 2 + (7,) * 7 + (15,) * 15]))
        assert expected[f"R{k}"] == pytest.approx(np.mean([d[f"R{k}"] for d in drawn]), abs=0.005)


@pytest.mark.parametrize("sizes", [[1], [4], [5], [2, 3], [1, 1, 6], [2, 7, 7, 15]])
def test_the_median_of_random_ranks(sizes):
    whole = math.lcm(*sizes)
    ranks = [r for n in sizes for r in range(1, n + 1) for _ in range(whole // n)]
    assert random_ranks(np.array(sizes))["median_rank"] == np.median(ranks)


def test_groups_are_examples_with_the_same_labels():
    tags = np.array([[1, 0], [1, 1], [1, 0], [0, 0]], np.float32)
    assert group_sizes(tags).tolist() == [2, 1, 2, 1]
    assert same_class(tags).astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert class_chance(np.array([3]), 3) == {"R1": 1, "R5": 1, "R10": 1}


def test_means_over_seeds():
    other = {m: x[::-1] for m, x in EMBEDDINGS.items()}
    rows = [search_pairs(e, PRESENT, LABELS) for e in (EMBEDDINGS, other)]
    records = [{"pretrain": "audio+text", "pairs": r} for r in rows]
    found = averages([*records, {"pretrain": "audio+image", "pairs": rows[0]}])
    assert list(found) == ["audio+text", "audio+image"]
    values = [r[3]["instance"]["R5"] for r in rows]
    stat = found["audio+text"][3]["instance"]["R5"]
    assert (stat.mean, stat.n) == (pytest.approx(np.mean(values)), 2)
    assert stat.sd == pytest.approx(np.std(values, ddof=1))
    assert found["audio+image"][0]["n"] == rows[0][0]["n"] and found["audio+image"][0]["class"]["R1"].n == 1
