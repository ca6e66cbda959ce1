"""Locks that go with the process that holds them, however it ends: of workdirs, of stages, of `mmr prepare`."""

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from mmr_jax.errors import UserError

NAME = ".lock"


@contextlib.contextmanager
def locked(folder: str | Path, shared: bool = False):
    """Hold the lock of `folder`, alone or with others that share it; UserError that names the holder if it is taken."""
    path = Path(folder) / NAME
    descriptor = hold(path, shared)
    if descriptor is None:
        raise UserError(f"{folder} is in use by {_holder(path)}: wait for it, end it, or take another --workdir")
    try:
        this = f"process {os.getpid()} on {socket.gethostname()} since {_now()}"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (f"mmr stage, the last to begin was {this}" if shared else this).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def hold(path: Path, shared: bool = False) -> int | None:
    """The descriptor of the lock file `path`, locked until it is closed; None if another process has it.

    The file stays: removing it would let two in. A holder may remove the folder it lies in.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # the one that held it has just finished and removed the folder


def _holder(path: Path) -> str:
    return path.read_text(errors="replace").strip() or "another process"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
