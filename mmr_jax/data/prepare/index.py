"""The files of a finished set beside its shards: index, metadata of TFDS, prepared.json, failures.csv."""

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

from mmr_jax.data.prepare.listing import Problem
from mmr_jax.data.prepare.plan import Plan
from mmr_jax.data.prepare.records import INFO, LAYOUT, MODALITIES
from mmr_jax.data.prepare.shards import Facts
from mmr_jax.files import write_bytes, write_text

FAILURES = "failures.csv"
KEPT_ANYWAY = "text not UTF-8"  # the one reason of a listing's problems that leaves the clip

Failure = tuple[str, str, str, str, str]  # id, split, modality, reason, detail


@dataclasses.dataclass(frozen=True)
class Split:
    """What became of a split; `facts` are those of its shards in their order."""

    name: str
    clips: int
    facts: list[Facts]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The index's lines, in the order of the records."""
        return [row for facts in self.facts for row in facts["rows"]]

    @property
    def bytes(self) -> int:
        return sum(facts["bytes"] for facts in self.facts)

    @property
    def notes(self) -> collections.Counter:
        """Clips by note."""
        return sum((collections.Counter(facts["notes"]) for facts in self.facts), collections.Counter())

    def counts(self) -> dict[str, int]:
        """Clips listed, kept, and with each modality."""
        present = np.array([row["present"] for row in self.rows], bool).reshape(-1, len(MODALITIES)).sum(0)
        return {
            "clips": self.clips,
            "kept": len(self.rows),
            **{m: int(n) for m, n in zip(MODALITIES, present, strict=True)},
        }


def write_files(folder: Path, plan: Plan, splits: list[Split]) -> None:
    """All files but the shards."""
    for split in splits:
        write_bytes(folder / f"index-{split.name}.npz", _index(split, list(plan.schema.classes)))
    _write_metadata(folder, plan, splits)
    write_failures(folder / FAILURES, failures(plan, splits))
    write_text(folder / INFO, json.dumps(_info(plan, splits), indent=1, sort_keys=True, ensure_ascii=False))


def failures(plan: Plan, splits: list[Split]) -> list[Failure]:
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


def _index(split: Split, label_sets: list[str]) -> bytes:
    """The arrays of index-{split}.npz, in the order of the records."""
    rows = split.rows
    arrays = {
        "id": np.array([row["id"] for row in rows], np.str_),
        "source": np.array([row["source"] for row in rows], np.str_),
        "present": np.array([row["present"] for row in rows], bool).reshape(-1, len(MODALITIES)),
        "duration": np.array([row["duration"] for row in rows], np.float32),
    }
    for name in label_sets:
        numbers = [row["labels"][name] for row in rows]
        arrays[f"label-{name}"] = np.array([n for clip in numbers for n in clip], np.int32)
        arrays[f"offset-{name}"] = np.cumsum([0, *map(len, numbers)], dtype=np.int64)
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def _write_metadata(folder: Path, plan: Plan, splits: list[Split]) -> None:
    """What makes the folder a data set of TFDS."""
    infos = []
    for split in splits:
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=plan.listing.name, split=split.name, filetype_suffix="array_record"
        )
        lengths = [len(facts["rows"]) for facts in split.facts]
        infos.append(
            tfds.core.SplitInfo(
                name=split.name, shard_lengths=lengths, num_bytes=split.bytes, filename_template=template
            )
        )
    description = "\n".join((plan.listing.title, *plan.listing.notes))
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=plan.schema.features, split_infos=infos, description=description, check_data=False
    )


def _info(plan: Plan, splits: list[Split]) -> dict[str, Any]:
    """prepared.json. `digest` is the SHA-256 of the SHA-256 hex digests of all shards, one after another."""
    listing = plan.listing
    shards = "".join(facts["sha256"] for split in splits for facts in split.facts)
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
        "digest": hashlib.sha256(shards.encode()).hexdigest(),
        "made_from": plan.facts,
    }
