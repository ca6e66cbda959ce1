"""Retrieval across modalities: does an example's embedding in one modality find its own in another, or its class?"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from mmr_jax.robustness.scores import retrieval
from mmr_jax.robustness.views import Stat, stat

KS = (1, 5, 10)


def search_pairs(
    embeddings: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray], labels: np.ndarray
) -> list[dict]:
    """One row per ordered pair of modalities: {"query", "candidates", "n", and what `search` finds}.

    embeddings {m: float [N, D]}, present {m: bool [N]}, labels int [N] or {0, 1} [N, C]. Similarity is the cosine;
    examples that lack one of the two modalities are neither query nor candidate. Without examples there is only n.
    """
    unit = {m: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for m, x in embeddings.items()}
    rows = []
    for query, candidates in itertools.permutations(sorted(unit), 2):
        both = present[query] & present[candidates]
        found = search(unit[query][both] @ unit[candidates][both].T, labels[both]) if both.any() else {}
        rows.append({"query": query, "candidates": candidates, "n": int(both.sum()), **found})
    return rows


def search(similarity: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Similarity float [N, N] (rows are queries, candidate i belongs to query i) and labels -> shares in [0, 1].

    instance        R@k of the query's own candidate, and its median rank
    class           share of queries with a candidate of their class among the k nearest
    .._chance       the same of a random order
    instance_class  the same of a model that finds the class (all labels of the example) and nothing more: its
                    candidates come first, in random order. No more can be had where partners share only their class.
    Ties count against the query, so collapsed embeddings find nothing.
    """
    related = same_class(labels)
    return {
        "instance": retrieval(similarity, KS),
        "instance_chance": random_ranks(np.full(len(labels), len(labels))),
        "instance_class": random_ranks(group_sizes(labels)),
        "class": class_recall(similarity, related),
        "class_chance": class_chance(related.sum(axis=1), len(labels)),
    }


def same_class(labels: np.ndarray) -> np.ndarray:
    """Bool [N, N]: equal classes, or with labels {0, 1} [N, C] one in common; an example always goes with itself."""
    if labels.ndim == 1:
        return labels[:, None] == labels
    positive = (labels > 0).astype(np.float32)
    return (positive @ positive.T > 0) | np.eye(len(labels), dtype=bool)


def group_sizes(labels: np.ndarray) -> np.ndarray:
    """int [N]: how many examples have exactly the label (or labels) of each."""
    _, group, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    return counts[group.reshape(-1)]


def class_recall(similarity: np.ndarray, related: np.ndarray) -> dict[str, float]:
    """Share of queries with a related candidate among the k nearest, under "R1", "R5", ..; ties count against it."""
    best = np.where(related, similarity, -np.inf).max(axis=1, keepdims=True)
    ranks = 1 + ((similarity >= best) & ~related).sum(axis=1)
    return {f"R{k}": float((ranks <= k).mean()) for k in KS}


def class_chance(related: np.ndarray, total: int) -> dict[str, float]:
    """Chance that k different candidates out of `total` hold one of the `related` int [N], mean over queries."""
    found = {}
    for k in KS:
        drawn = np.arange(min(k, total))
        miss = np.prod(np.maximum(total - related[:, None] - drawn, 0) / (total - drawn), axis=1)
        found[f"R{k}"] = float(np.mean(1 - miss))
    return found


def random_ranks(sizes: np.ndarray) -> dict[str, float]:
    """R@k and median rank where the rank of query i is uniform on 1 .. sizes[i]; sizes int [N]."""
    sizes = np.asarray(sizes, np.int64)
    recall = {f"R{k}": float(np.mean(np.minimum(k, sizes) / sizes)) for k in KS}
    ranks = np.arange(1, sizes.max() + 1)
    values, counts = np.unique(sizes, return_counts=True)
    below = (np.minimum(ranks[:, None], values) / values) @ counts / len(sizes)  # P(rank <= r)
    low, high = ranks[np.argmax(below >= 0.5 - 1e-9)], ranks[np.argmax(below > 0.5 + 1e-9)]
    return {**recall, "median_rank": float(low + high) / 2}


def averages(records: Sequence[Mapping]) -> dict[str, list[dict]]:
    """Records {"pretrain", "pairs": rows of `search_pairs`}, one per seed -> {pretrain: rows of `Stat` over seeds}."""
    grouped: dict[str, dict[tuple[str, str], list[Mapping]]] = {}
    for record in records:
        pairs = grouped.setdefault(record["pretrain"], {})
        for row in record["pairs"]:
            pairs.setdefault((row["query"], row["candidates"]), []).append(row)
    return {
        pretrain: [{"query": q, "candidates": c, **_mean(rows)} for (q, c), rows in pairs.items()]
        for pretrain, pairs in grouped.items()
    }


def _mean(rows: Sequence[Mapping]) -> dict[str, int | dict[str, Stat]]:
    parts = {k: v for k, v in rows[0].items() if isinstance(v, Mapping)}
    means = {p: {k: stat([row[p][k] for row in rows]) for k in values} for p, values in parts.items()}
    return {"n": rows[0]["n"], **means}
