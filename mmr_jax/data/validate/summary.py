"""All numbers of the report, as report.json holds them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmr_jax.data.prepare.records import MODALITIES
from mmr_jax.data.prepared.folder import Folder
from mmr_jax.data.validate import columns
from mmr_jax.data.validate.columns import Index
from mmr_jax.data.validate.facts import SUSPICIOUS, Facts, Found
from mmr_jax.data.validate.repeats import same_content

ALL = "all"  # splits together
_BINS = 40  # of the histogram of durations


def summarize(folder: Folder, indexes: Mapping[str, Index], facts: Mapping[str, Facts]) -> dict[str, Any]:
    """Numbers by split where they differ by split. What a folder does not have is left out."""
    classes = {name: folder.classes[name] for name in folder.info["label_sets"]}  # TFDS has them in any order
    together = Facts()
    for of_split in facts.values():
        together.merge(of_split)
    statistics = {**facts, **({ALL: together} if len(facts) > 1 else {})}
    return {
        "splits": {name: _clips(index, facts[name].read) for name, index in indexes.items()},
        "durations": _durations(indexes),
        "labels": {name: _labels(name, names, folder.info, indexes) for name, names in classes.items()},
        "texts": {name: _texts(together, name) for name in folder.info["texts"]},
        "log_mel": {name: _log_mel(of) for name, of in statistics.items() if of.mel.values},
        "pixels": {name: _pixels(of.pixels) for name, of in statistics.items() if of.pixels.any()},
        "suspicious": _suspicious(together, indexes, facts, classes),
    }


def _clips(index: Index, read: int) -> dict[str, Any]:
    present = {m: int(n) for m, n in zip(MODALITIES, index["present"].sum(0), strict=True)}
    seconds = float(index["duration"].sum(dtype=np.float64))
    clips = {"clips": len(index["id"]), "read": read, "present": present, "hours": seconds / 3600}
    return clips | {"combinations": columns.combinations(index)}


def _durations(indexes: Mapping[str, Index]) -> dict[str, Any]:
    """Seconds: of each split some quantiles and a histogram, which has the same edges for all."""
    edges = np.histogram_bin_edges(np.concatenate([index["duration"] for index in indexes.values()]), _BINS)
    splits = {}
    for name, index in indexes.items():
        seconds = index["duration"]
        if len(seconds):
            low, median, most, high = np.quantile(seconds, (0, 0.5, 0.95, 1)).tolist()
            quantiles = {"shortest": low, "median": median, "95 %": most, "longest": high}
            counts = np.histogram(seconds, edges)[0].tolist()
            splits[name] = quantiles | {"mean": float(seconds.mean(dtype=np.float64)), "counts": counts}
    return {"edges": edges.tolist(), "splits": splits}


def _labels(name: str, classes: tuple[str, ...], info: Mapping, indexes: Mapping[str, Index]) -> dict[str, Any]:
    splits = {}
    for split, index in indexes.items():
        counts = columns.class_counts(index, name, len(classes))
        labelled = int((np.diff(index.labels(name)[1]) > 0).sum())
        splits[split] = {"labelled": labelled, "counts": dict(zip(classes, counts.tolist(), strict=True))}
    return {"multilabel": info["label_sets"][name]["multilabel"], "splits": splits}


def _texts(facts: Facts, name: str) -> dict[str, Any]:
    lengths = facts.texts[name]
    found: dict[str, Any] = {"clips": facts.with_text[name], "texts": lengths.total()}
    for column, unit in enumerate(("words", "bytes")):
        if lengths:
            found[unit] = _quantiles(Counter(), lengths, column)
    return found


def _quantiles(counts: Counter, lengths: Counter, column: int) -> dict[str, float]:
    """Of one column of {(words, bytes): texts}."""
    for length, texts in lengths.items():
        counts[length[column]] += texts
    values = np.array(sorted(counts))
    upto = np.cumsum([counts[v] for v in values.tolist()])

    def quantile(share: float) -> int:
        return int(values[np.searchsorted(upto, share * upto[-1])])

    mean = sum(v * n for v, n in counts.items()) / counts.total()
    return {"median": quantile(0.5), "mean": mean, "95 %": quantile(0.95), "longest": int(values[-1])}


def _log_mel(facts: Facts) -> dict[str, float]:
    mean, std = facts.mel.mean_std()
    return {"mean": mean, "std": std, "values": facts.mel.values}


def _pixels(counts: np.ndarray) -> dict[str, Any]:
    """Per channel, of pixel values / 255, from int64 [3, 256]."""
    values, total = np.arange(256) / 255, counts.sum(1)
    mean = counts @ values / total
    std = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    return {"mean": mean.tolist(), "std": std.tolist(), "values": int(total[0])}


def _suspicious(
    together: Facts, indexes: Mapping[str, Index], facts: Mapping[str, Facts], classes: Mapping[str, tuple]
) -> dict[str, dict]:
    ids = {name: index["id"] for name, index in indexes.items()}
    found: dict[str, Found] = together.found | same_content(facts, ids) | columns.from_indexes(indexes, classes)
    return {
        kind: {"count": found[kind].count, "first": [case._asdict() for case in found[kind].first]}
        for kind in SUSPICIOUS
        if kind in found and found[kind].count
    }
