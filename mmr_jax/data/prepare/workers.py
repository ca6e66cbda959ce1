"""Processes that work for another one, each on a task of its own, any of which a codec may kill.

Every worker has a pipe to itself, so it is known which task a dead one had: a shared queue would not tell.
"""

import collections
import contextlib
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from mmr_jax.errors import UserError

_CONTEXT = multiprocessing.get_context("spawn")  # forking a process that has threads is not safe
_LOOK = 0.2  # seconds between looks at whether to stop

Task = tuple[Callable, tuple]  # a function of a module, and its arguments
Done = Callable[[Task, Any], Iterable[Task]]  # takes a task and its result, gives tasks that are to come next


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Crashed(Exception):
    """The worker died of the signal `number`, a codec's fault or the system short of memory; 0: it took too long."""

    def __init__(self, number: int, text: str = ""):
        super().__init__(text or f"signal {number}")
        self.number = number


class Worker:
    """One process. It ends with this one, however this one ends."""

    def __init__(self):
        self.pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.task: Task | None = None
        self.ends = math.inf

    def give(self, task: Task, seconds: float) -> None:
        """Starts a task; `take` has its result. It should be there after so many seconds."""
        self.task = task
        self.ends = time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died meanwhile; `take` tells
            self.pipe.send(task)

    def take(self) -> Any:
        """Waits for the result. Crashed if the process died; what the task raised is raised here."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            status = self._process.exitcode
            if status >= 0:  # it could not even start, which is no codec's fault; its traceback is on the terminal
                raise RuntimeError(f"a worker process ended with status {status}") from None
            raise Crashed(-status) from None
        if kind == "raised":
            raise value
        return value

    def stop(self) -> None:
        """At once, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


class Pool:
    """Up to `processes` workers. With `with`: they are gone at its end.

    A worker that takes longer than `seconds(task)` is killed.
    """

    def __init__(self, processes: int, seconds: Callable[[Task], float] = lambda task: math.inf):
        self._processes = processes
        self._seconds = seconds
        self._workers: list[Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends all workers at once."""
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def run(self, tasks: Iterable[Task], done: Done, look: Callable[[], None]) -> list[tuple[Task, Crashed]]:
        """Runs all tasks. Returns those whose worker died, with how it ended; the others are not disturbed.

        `look` is called several times a second and may raise to stop everything.
        """
        waiting, dead = collections.deque(tasks), []
        busy: list[Worker] = []
        while waiting or busy:
            self._hand_out(waiting, busy)
            ready = multiprocessing.connection.wait([worker.pipe for worker in busy], _LOOK)
            look()
            late = [w for w in busy if w.pipe not in ready and time.monotonic() > w.ends]
            for worker in [w for w in busy if w.pipe in ready] + late:
                busy.remove(worker)
                try:
                    if worker in late:
                        raise Crashed(0, f"took longer than {self._seconds(worker.task):.0f} s")
                    waiting.extendleft(done(worker.task, worker.take()))
                except Crashed as error:
                    dead.append((worker.task, error))
                    self._workers.remove(worker)
                    worker.stop()
        return dead

    def _hand_out(self, waiting: collections.deque, busy: list[Worker]) -> None:
        while waiting and len(busy) < self._processes:
            idle = next((w for w in self._workers if w not in busy), None)
            if idle is None:
                idle = Worker()
                self._workers.append(idle)
            task = waiting.popleft()
            idle.give(task, self._seconds(task))
            busy.append(idle)


def _serve(pipe) -> None:
    """The life of a worker: tasks in, results out, until the other end is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the command; it stops its workers itself
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("done", function(*arguments))
        except (UserError, OSError) as error:  # one line on the terminal
            answer = ("raised", error)
        except Exception:
            answer = ("raised", RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))
        pipe.send(answer)


def _end_with_parent() -> None:
    """A worker in the middle of a video would else outlive a command that was killed, and write beside the next one."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
