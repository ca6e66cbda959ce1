"""SIGTERM and SIGINT as a flag that loops read, so that they can save first.

Python runs a handler between two bytecodes of the main thread, which may be minutes away while that compiles. So a
command also has a thread that hears the signal at once and ends the process if there is nothing to save.
"""

import contextlib
import os
import signal
import sys
import threading
import time

from mmr_jax.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_S = 2.0  # for the main thread to come to a check by itself
EXIT_CODE = 75
REPEAT = "Repeat the same command to go on from there"


class _Flag:
    """`raised`: a signal came. `holding`: there is progress that no checkpoint has, so the process must not just end.

    `where`: the last place that checked.
    """

    raised = False
    holding = False
    where = "its start"


FLAG = _Flag()


@contextlib.contextmanager
def handled(ends_process: bool = False):
    """Within: a first signal asks the loop to save and stop, a second one ends the process at once.

    With `ends_process` (for commands) the process also ends, with exit code 75, when the main thread has come to no
    check after `GRACE_S` seconds and nothing is held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number, frame):
        if FLAG.raised:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        FLAG.raised = True

    before = {n: signal.signal(n, handler) for n in SIGNALS}
    try:
        with _listening() if ends_process else contextlib.nullcontext():
            yield
    finally:
        FLAG.raised, FLAG.where = False, _Flag.where
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _listening():
    """A thread that reads the numbers of signals from a pipe, into which the system's handler writes them."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    over = threading.Event()
    thread = threading.Thread(target=_listen, args=(reader, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        os.close(writer)  # the thread reads the end of the pipe
        thread.join()
        os.close(reader)


def _listen(reader: int, over: threading.Event) -> None:
    came = 0
    while number := os.read(reader, 1):
        if number[0] not in SIGNALS:
            continue
        came += 1
        if came > 1:
            os._exit(128 + number[0])
        threading.Thread(target=_end_if_idle, args=(over,), daemon=True).start()


def _end_if_idle(over: threading.Event) -> None:
    """End the process when nothing is held; while something is, wait for the loop to save it and go on from there."""
    deadline = time.monotonic() + GRACE_S
    while not over.wait(0.05):
        if FLAG.holding:
            deadline = time.monotonic() + GRACE_S
        elif time.monotonic() > deadline:
            print(f"mmr: interrupted after {FLAG.where}, with nothing to save. {REPEAT}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(EXIT_CODE)


def check(where: str, raised: bool | None = None) -> None:
    """Raise `Interrupted` if a signal came, or if `raised` says so; for the places between steps and stages.

    `where` says what is saved.
    """
    FLAG.where = where
    if FLAG.raised if raised is None else raised:
        raise Interrupted(f"interrupted at {where}. {REPEAT}")
