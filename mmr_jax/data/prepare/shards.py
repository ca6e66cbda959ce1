"""Shards and the pieces that they are put together from; both are ArrayRecord files with their facts as JSON.

Pieces exist so that every core has work however few the shards are, and so that a run that was cut off goes on close
to where it was. Whatever has its facts is whole, for they are written last.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mmr_jax.data.prepare.clip import Outcome, Preparer, lost
from mmr_jax.data.prepare.plan import Job, Piece, Shard
from mmr_jax.errors import UserError
from mmr_jax.files import read_json, write_text

_AT_ONCE = 16  # records read from a piece at a time

Facts = dict[str, Any]  # rows, problems, notes {note: clips}, clips; of a shard also bytes and sha256


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a piece of work took: clips done, seconds of media kept and seconds of processor time.

    `before` are clips that were found done.
    """

    clips: int = 0
    media: float = 0.0
    processor: float = 0.0
    before: int = 0


def shard_path(work: Path, shard: Shard) -> Path:
    """Where a shard lies until the whole set is published."""
    return work / "set" / shard.filename


def facts_path(work: Path, shard: Shard) -> Path:
    """The facts of a shard; there once it is whole."""
    return work / "facts" / f"{shard.filename}.json"


def piece_path(work: Path, piece: Piece) -> Path:
    """The facts of a piece; there once it is whole. Its records lie beside."""
    return work / "pieces" / f"{piece.filename}.json"


def write_piece(job: Job, piece: Piece, crashed: str = "") -> Spent:
    """Prepares the clips of a piece, or with `crashed` notes that the decoder does not survive its only clip."""
    path = piece_path(job.work, piece)
    if path.exists():  # done before the run was cut off, or by another try of a Beam worker
        return Spent(before=len(piece.clips))
    began = time.process_time()
    outcomes = (lost(clip, "undecodable", crashed) for clip in piece.clips) if crashed else _prepared(job, piece)
    facts: Facts = {"clips": len(piece.clips), "rows": [], "problems": [], "notes": collections.Counter()}
    _write_records(path.with_suffix(""), _noted(outcomes, facts))
    write_text(path, json.dumps(facts, sort_keys=True))
    return Spent(len(piece.clips), sum(row["duration"] for row in facts["rows"]), time.process_time() - began)


def merge_shard(job: Job, shard: Shard, pieces: Iterable[Piece]) -> Spent:
    """Puts the pieces of a shard together, in order, and removes them."""
    began = time.process_time()
    paths = [piece_path(job.work, piece) for piece in pieces]
    if not facts_path(job.work, shard).exists():
        path = shard_path(job.work, shard)
        facts = _sum([read_json(p) for p in paths])
        _write_records(path, (record for p in paths for record in _records(p.with_suffix(""))))
        with path.open("rb") as file:
            facts["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        facts["bytes"] = path.stat().st_size
        write_text(facts_path(job.work, shard), json.dumps(facts, sort_keys=True))
    for p in paths:
        p.unlink(missing_ok=True)
        p.with_suffix("").unlink(missing_ok=True)
    return Spent(processor=time.process_time() - began)


def _prepared(job: Job, piece: Piece) -> Iterator[Outcome]:
    preparer = Preparer(job.media, job.settings, job.schema)
    return (preparer.prepare(clip) for clip in piece.clips)


def _noted(outcomes: Iterable[Outcome], facts: Facts) -> Iterator[bytes]:
    """The records that there are, while `facts` is filled in."""
    for outcome in outcomes:
        facts["problems"] += [list(problem) for problem in outcome.problems]
        facts["notes"].update(set(outcome.notes))
        if outcome.record is not None:
            facts["rows"].append(outcome.row)
            yield outcome.record


def _sum(parts: list[Facts]) -> Facts:
    return {
        "clips": sum(part["clips"] for part in parts),
        "rows": [row for part in parts for row in part["rows"]],
        "problems": [problem for part in parts for problem in part["problems"]],
        "notes": sum((collections.Counter(part["notes"]) for part in parts), collections.Counter()),
    }


def _write_records(path: Path, records: Iterable[bytes]) -> None:
    """An ArrayRecord file, there in full or not at all. UserError where it cannot be written."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("wb"):  # the writer would tell of a folder that is not writable only much later
        pass
    writer = ArrayRecordWriter(str(temporary), "group_size:1")
    try:
        for record in records:
            with _clear_errors(path):
                writer.write(record)
        with _clear_errors(path):
            writer.close()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _clear_errors(path: Path):
    """What the writer raises is a page about chunks; its first part is the cause."""
    try:
        yield
    except RuntimeError as error:
        cause = str(error).split(";")[0]
        raise UserError(f"{path} cannot be written: {cause}; make room and run the command again") from None


def _records(path: Path) -> Iterator[bytes]:
    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
    try:
        for first in range(0, reader.num_records(), _AT_ONCE):
            yield from reader.read(list(range(first, min(first + _AT_ONCE, reader.num_records()))))
    finally:
        reader.close()
