"""The files of a finished set beside its shards: index, metadata of TFDS, prepared.json, failures.csv.

A split's index has, in the order of its records, "id", "source", "present" bool [clips, MODALITIES] (text: whether any
of the text sets has one), "duration" float32 in seconds, and the columns of each label set (`layout.label_columns`).
"""

import collections
import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmr_jax.data.prepare.layout import INFO, LAYOUT, index_name, label_columns
from mmr_jax.data.prepare.listing import Problem
from mmr_jax.data.prepare.plan import Plan
from mmr_jax.data.prepare.records import MODALITIES
from mmr_jax.data.prepare.shards import Facts, facts_path
from mmr_jax.files import read_json, write_bytes, write_text

FAILURES = "failures.csv"
KEPT_ANYWAY = "text not UTF-8"  # the one reason of a listing's problems that leaves the clip

Failure = tuple[str, str, str, str, str]  # id, split, modality, reason, detail


@dataclasses.dataclass(frozen=True)
class Made:
    """What became of a split: `columns` are the index's, `facts` those of its shards in their order, without rows."""

    name: str
    clips: int
    columns: dict[str, np.ndarray]
    facts: list[Facts]

    @property
    def bytes(self) -> int:
        return sum(facts["bytes"] for facts in self.facts)

    @property
    def notes(self) -> collections.Counter:
        """Clips by note."""
        return sum((collections.Counter(facts["notes"]) for facts in self.facts), collections.Counter())

    def counts(self) -> dict[str, int]:
        """Clips listed, kept, and with each modality."""
        present = self.columns["present"]
        with_each = zip(MODALITIES, present.sum(0).tolist(), strict=True)
        return {"clips": self.clips, "kept": len(present), **dict(with_each)}


def made(work: Path, plan: Plan, split: str) -> Made:
    """What lies in the folder of the work, in which every shard of the split must be whole."""
    label_sets = list(plan.schema.classes)
    facts, columns = zip(*(_read(facts_path(work, shard), label_sets) for shard in plan.shards(split)), strict=True)
    joined = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    for _, offset in map(label_columns, label_sets):
        joined[offset] = np.cumsum(np.concatenate([[0], joined[offset]]), dtype=np.int64)
    return Made(split, len(plan.splits[split]), joined, list(facts))


def write_files(folder: Path, plan: Plan, splits: list[Made]) -> None:
    """All files but the shards."""
    indexes = []
    for split in splits:
        data = io.BytesIO()
        np.savez(data, **split.columns)
        write_bytes(folder / index_name(split.name), data.getvalue())
        indexes.append(hashlib.sha256(data.getvalue()).hexdigest())
    _write_metadata(folder, plan, splits)
    write_failures(folder / FAILURES, failures(plan, splits))
    info = {**_info(plan, splits), "digest": _digest(plan, splits, indexes)}
    write_text(folder / INFO, json.dumps(info, indent=1, sort_keys=True, ensure_ascii=False))


def failures(plan: Plan, splits: list[Made]) -> list[Failure]:
    """What could not be used of the listing, then of each split in the order of its clips."""
    found = [(name, "", modality, reason, detail) for name, modality, reason, detail in plan.listing.problems]
    return found + [_failure(problem, s.name) for s in splits for facts in s.facts for problem in facts["problems"]]


def lost(found: Iterable[Failure]) -> int:
    """Clips of which nothing is left."""
    return sum(modality == "clip" and reason != KEPT_ANYWAY for _, _, modality, reason, _ in found)


def write_failures(path: Path, found: list[Failure]) -> None:
    """A csv file with a line per failure."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "split", "modality", "reason", "detail"])
    writer.writerows(found)
    write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))


def _failure(problem: Problem, split: str) -> Failure:
    name, modality, reason, detail = problem
    return name, split, modality, reason, detail


def _read(path: Path, label_sets: list[str]) -> tuple[Facts, dict[str, np.ndarray]]:
    """A shard's facts with "kept" for its rows, and these as columns; the second of a label set is labels per clip.

    A shard at a time, for the rows of all of a large set do not fit in memory.
    """
    facts = read_json(path)
    rows = facts.pop("rows")
    columns = {
        "id": np.array([row["id"] for row in rows], np.str_),
        "source": np.array([row["source"] for row in rows], np.str_),
        "present": np.array([row["present"] for row in rows], bool).reshape(-1, len(MODALITIES)),
        "duration": np.array([row["duration"] for row in rows], np.float32),
    }
    for name in label_sets:
        label, offset = label_columns(name)
        numbers = [row["labels"][name] for row in rows]
        columns[label] = np.array([n for clip in numbers for n in clip], np.int32)
        columns[offset] = np.array([len(clip) for clip in numbers], np.int64)
    return {**facts, "kept": len(rows)}, columns


def _write_metadata(folder: Path, plan: Plan, splits: list[Made]) -> None:
    """What makes the folder a data set of TFDS."""
    infos = []
    for split in splits:
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=plan.listing.name, split=split.name, filetype_suffix="array_record"
        )
        lengths = [facts["kept"] for facts in split.facts]
        infos.append(
            tfds.core.SplitInfo(
                name=split.name, shard_lengths=lengths, num_bytes=split.bytes, filename_template=template
            )
        )
    description = "\n".join((plan.listing.title, *plan.listing.notes))
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=plan.schema.features, split_infos=infos, description=description, check_data=False
    )


def _info(plan: Plan, splits: list[Made]) -> dict[str, Any]:
    """prepared.json but for its digest."""
    listing = plan.listing
    return {
        "schema": LAYOUT,
        "name": listing.name,
        "title": listing.title,
        "modalities": list(listing.modalities),
        "settings": dataclasses.asdict(plan.settings),
        "label_sets": {n: {"multilabel": s.multilabel, "metric": s.metric} for n, s in listing.label_sets.items()},
        "texts": list(listing.texts),
        "notes": list(listing.notes),
        "splits": {split.name: split.counts() for split in splits},
        "made_from": plan.facts,
    }


def _digest(plan: Plan, splits: list[Made], indexes: list[str]) -> str:
    """SHA-256 of what is read for training: the digests of all shards and indexes, classes and how they are scored."""
    content = {
        "shards": [facts["sha256"] for split in splits for facts in split.facts],
        "indexes": indexes,
        "label_sets": {n: [s.classes, s.multilabel, s.metric] for n, s in plan.listing.label_sets.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
