"""The records shared out to processes, and what they find put together in the order of the records."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmr_jax.data.prepare.workers import Pool, Task, cores
from mmr_jax.data.prepared.folder import Split
from mmr_jax.data.validate import columns
from mmr_jax.data.validate.facts import Facts
from mmr_jax.data.validate.read import Job, Rows, damaged, facts_of
from mmr_jax.errors import Interrupted
from mmr_jax.progress import Progress
from mmr_jax.train import interrupt

_AT_ONCE = 32  # records per task; whatever it is, sums of floats depend on it, so it does not depend on the machine

Chosen = Mapping[str, tuple[Split, np.ndarray]]  # by name: a split and the rows that are read of it


def read(pool: Pool, job: Job, chosen: Chosen, label_sets: Sequence[str], progress: Progress) -> dict[str, Facts]:
    """The facts of each split. A record that kills its process counts as damaged. Interrupted after a signal."""
    merger = _Merger(chosen, _tasks(job, chosen, label_sets), progress)
    while first := list(itertools.islice(merger.waiting, 2 * cores())):
        for task, _ in pool.run(first, merger.done, look):
            with Pool(1) as alone:
                merger.put(task, _one_by_one(alone, task))
    return merger.facts


def look() -> None:
    """Interrupted if a signal came (within `interrupt.handled`)."""
    if interrupt.FLAG.raised:
        raise Interrupted("interrupted; no report is written. Repeat the same command to begin again")


def _tasks(job: Job, chosen: Chosen, label_sets: Sequence[str]) -> Iterator[Task]:
    """One after another, for the lines of the index in all of them take more memory than the index."""
    number = itertools.count()
    for name, (split, rows) in chosen.items():
        for first in range(0, len(rows), _AT_ONCE):
            part = rows[first : first + _AT_ONCE]
            yield facts_of, (job, Rows(name, part, columns.lines(split.index, part, label_sets)), next(number))


def _one_by_one(pool: Pool, task: Task) -> Facts:
    """The facts of a task that killed its process: record by record, with nothing beside them."""
    job, rows, number = task[1]
    facts = Facts()
    for i, line in enumerate(rows.lines):
        single = Rows(rows.split, rows.rows[i : i + 1], [line])
        for _, how in pool.run([(facts_of, (job, single, number))], lambda _, found: facts.merge(found) or (), look):
            facts.merge(damaged(rows.split, int(rows.rows[i]), line, f"the decoder crashed ({how})"))
    return facts


class _Merger:
    """Adds up what tasks found, in their order, whatever the order in which they end."""

    def __init__(self, chosen: Chosen, waiting: Iterator[Task], progress: Progress):
        self.facts = {name: Facts() for name in chosen}
        self.waiting = waiting
        self._progress = progress
        self._early: dict[int, tuple[str, Facts]] = {}
        self._next = 0

    def done(self, task: Task, found: Any) -> list[Task]:
        """Takes note of a task; the one that comes in its place."""
        self.put(task, found)
        return list(itertools.islice(self.waiting, 1))

    def put(self, task: Task, found: Facts) -> None:
        """Takes note of what a task found."""
        _, rows, number = task[1]
        self._progress.count(found.read)
        self._progress.tell()
        self._early[number] = rows.split, found
        while self._next in self._early:
            split, facts = self._early.pop(self._next)
            self.facts[split].merge(facts)
            self._next += 1
