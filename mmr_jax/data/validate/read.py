"""Reading records and adding up what is found: the work of the processes."""

import functools
from typing import Any, NamedTuple

import numpy as np

from mmr_jax.data.prepare.records import Example
from mmr_jax.data.prepared.folder import Folder, Split
from mmr_jax.data.validate import checks, sound
from mmr_jax.data.validate.facts import DAMAGED, Case, Facts


class Job(NamedTuple):
    """The folder, what its settings say, and the front end."""

    folder: str
    rate: int
    frames: int
    mels: int
    window: str


class Rows(NamedTuple):
    """Rows int64 [n] of a split, and their lines of the index (see checks.against_index)."""

    split: str
    rows: np.ndarray
    lines: list[dict[str, Any]]


def facts_of(job: Job, rows: Rows, number: int) -> Facts:
    """Reads these records; `number` only tells tasks apart."""
    sound.on_cpu()
    split, facts = opened_split(job.folder, rows.split), Facts()
    digests = {}
    for row, line in zip(rows.rows.tolist(), rows.lines, strict=True):
        try:
            example = split[row]
        except ValueError as error:
            facts.merge(damaged(rows.split, row, line, str(error)))
            continue
        found = _look(job, example, facts) | checks.against_index(example, line)
        for kind, detail in found.items():
            facts.found[kind].add(Case(rows.split, row, str(line["id"]), detail))
        digests[row] = checks.digest(example)
    present = {row: d for row, d in digests.items() if d is not None}
    facts.digest_rows.append(np.array(list(present), np.int64))
    facts.digests.append(np.array(list(present.values()), np.uint64))
    return facts


def damaged(split: str, row: int, line: dict[str, Any], reason: str) -> Facts:
    """The facts of a record that cannot be read."""
    facts = Facts(read=1)
    facts.found[DAMAGED].add(Case(split, row, str(line["id"]), reason))
    return facts


@functools.cache
def opened(folder: str) -> Folder:
    """A folder, opened once per process."""
    return Folder(folder)


@functools.cache
def opened_split(folder: str, split: str) -> Split:
    """A split, opened once per process."""
    return opened(folder).split(split)


def _look(job: Job, example: Example, facts: Facts) -> dict[str, str]:
    """Adds an example to the statistics; what is suspicious about it."""
    facts.read += 1
    for block in sound.log_mel_blocks(example["audio"], job.rate, job.mels, job.window):
        facts.mel.add(block)
    for name, texts in example["texts"].items():
        facts.with_text[name] += bool(texts)
        facts.texts[name].update(checks.text_length(text) for text in texts)
    return (
        checks.audio(example["audio"])
        | checks.frames(example["frames"], example["frame_times"], job.frames, facts.pixels)
        | checks.texts(example["texts"])
    )
