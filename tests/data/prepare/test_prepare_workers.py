"""Workers that die, fail and are stopped."""

import math
import os

import prepare_files as made
import pytest

from mmr_jax.data.prepare.workers import Pool, cores
from mmr_jax.errors import Interrupted


def never():
    pass


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert cores() == os.cpu_count()


def test_only_the_task_of_a_dead_worker_is_lost():
    results = []

    def done(task, result):
        results.append(result)
        return [(made.fail_at_three, (100,))] if result == 0 else []

    with Pool(2) as pool:
        dead = pool.run([(made.fail_at_three, (n,)) for n in range(7)], done, never)
        assert [(task[1], crash.number, str(crash)) for task, crash in dead] == [((3,), 11, "signal 11")]
        assert sorted(results) == [0, 1, 4, 16, 25, 36, 10_000]
        with pytest.raises(OSError, match="No space left") as error:  # as the task raised it
            pool.run([(made.fail_at_three, (13,))], done, never)
        assert error.value.filename == "there"


def test_look_stops_everything():
    def look():
        raise Interrupted("now")

    with pytest.raises(Interrupted), Pool(1) as pool:
        pool.run([(made.fail_at_three, (1,))], lambda *_: [], look)
    assert pool._workers == []


def test_a_task_that_takes_too_long_is_ended():
    results = []

    def done(task, result):
        results.append(result)
        return []

    with Pool(2, lambda task: 1.0 if task[1] == (33,) else math.inf) as pool:
        dead = pool.run([(made.fail_at_three, (n,)) for n in (1, 33, 2, 4)], done, never)
    assert [(task[1], crash.number, str(crash)) for task, crash in dead] == [((33,), 0, "took longer than 1 s")]
    assert sorted(results) == [1, 4, 16]
