"""What can be wrong with a media file, in few words that can be counted."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mmr_jax.errors import UserError

REASONS = (
    "missing file",
    "empty file",
    "not media",
    "no audio track",
    "no video track",
    "no frames",
    "no samples",
    "truncated",
    "too large",
    "undecodable",
    "outside the file",
)
_LONGEST = 200  # characters of a detail: decoders may quote a page of what they read


class MediaError(Exception):
    """A file that does not give what was asked of it: `reason` is one of REASONS, `detail` one line for people."""

    def __init__(self, reason: str, detail: str):
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is not in REASONS")
        self.reason = reason
        self.detail = " ".join(detail.split())[:_LONGEST]
        super().__init__(self.reason, self.detail)  # so that it can be pickled between processes

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def check_file(path: Path) -> None:
    """Raises MediaError if there is no file at `path` that can be opened, or one of no bytes."""
    if not path.is_file():
        raise MediaError("missing file", "a folder, not a file" if path.is_dir() else "there is no such file")
    try:
        with path.open("rb") as file:
            head = file.read(1)
    except OSError as error:
        raise MediaError("missing file", f"it cannot be opened: {error.strerror}") from None
    if not head:
        raise MediaError("empty file", "0 bytes")


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Turns whatever decoders raise on damaged input into a MediaError; UserErrors are about the set-up and pass."""
    try:
        yield
    except (MediaError, UserError):
        raise
    except MemoryError:
        raise MediaError("too large", "it does not fit in memory") from None
    except Exception as error:
        raise MediaError("undecodable", describe(error)) from error


def describe(error: Exception) -> str:
    """The kind of an error and what it says, without the path that libav's errors repeat."""
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
