"""SIGTERM and SIGINT as a flag that the loop reads between steps, so that it can save first."""

import contextlib
import signal
import threading

from mmr_jax.errors import Interrupted


class _Flag:
    raised = False


FLAG = _Flag()


@contextlib.contextmanager
def handled():
    """Within: a first signal asks the loop to save and stop, a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number, frame):
        if FLAG.raised:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        FLAG.raised = True

    before = {n: signal.signal(n, handler) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        FLAG.raised = False
        for number, old in before.items():
            signal.signal(number, old)


def check(where: str) -> None:
    """Raise `Interrupted` if a signal came; for the places between steps and stages. `where` says what is saved."""
    if FLAG.raised:
        raise Interrupted(f"interrupted at {where}. Repeat the same command to go on from there")
