"""One process at a time in a workdir."""

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from mmr_jax.errors import UserError

NAME = ".lock"


@contextlib.contextmanager
def locked(workdir: str | Path):
    """Hold the lock of `workdir`; UserError that names the holder if another process has it.

    The system gives it back when the process ends, however it ends. The file stays: removing it would let two in.
    """
    path = Path(workdir) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{workdir} is in use by {_holder(path)}: wait for it, end it, or take another --workdir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {_now()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    return path.read_text(errors="replace").strip() or "another process"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
