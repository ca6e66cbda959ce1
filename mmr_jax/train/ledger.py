"""Where the seconds of a stage went, over all the sessions that worked on it: `ledger.json` in its directory.

A session is a run of the command. It notes what it spent at every checkpoint; what a killed one did after the
checkpoint from which the next one goes on is `lost`. It is known to have lived until its last row of metrics.
"""

import contextlib
import time
from pathlib import Path

import jax

from mmr_jax.files import read_json, write_json

KINDS = ("compile", "restore", "data", "step", "save", "validate", "lost")
NAME = "ledger.json"
_KEPT = 8  # checkpoints per session whose account is remembered
_OPEN: dict[Path, list] = {}  # sessions of the stages that this process works on


class Ledger:
    """The account of a stage in `directory`. As a context: a session of it, or the one that this process has open."""

    def __init__(self, directory: Path):
        self._path = Path(directory).absolute() / NAME

    def __enter__(self):
        self._joined = self._path in _OPEN
        if not self._joined:
            sessions = read_json(self._path) if self._path.exists() else []
            if sessions:
                _close(sessions[-1], self._path.parent)
            sessions.append({"open": True, "clock": time.time(), "begun": time.monotonic(), **_nothing()})
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _OPEN[self._path] = sessions
        self._sessions = _OPEN[self._path]
        self._write()
        return self

    def __exit__(self, *error) -> None:
        if not self._joined:
            del _OPEN[self._path]
            self._now["open"] = False
        with contextlib.suppress(OSError) if error[0] else contextlib.nullcontext():
            self._write()

    @property
    def _now(self) -> dict:
        return self._sessions[-1]

    def _clock(self) -> float:
        """Seconds of this session up to now."""
        self._now["seconds"] = time.monotonic() - self._now["begun"]
        return self._now["seconds"]

    def _write(self) -> None:
        self._clock()
        if jax.process_index() == 0:
            write_json(self._path, self._sessions)

    @contextlib.contextmanager
    def spends(self, kind: str):
        """Within: seconds of one of `KINDS`."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._now["spent"][kind] = self._now["spent"].get(kind, 0.0) + time.monotonic() - begun

    def saved(self, step: int, unreadable: tuple[int, int] = (0, 0)) -> None:
        """Note the account at a checkpoint, and how many examples were read up to it and could not be (see Tally)."""
        saved = self._now["saved"]
        saved[str(step)] = {"seconds": self._clock(), "spent": dict(self._now["spent"]), "unreadable": unreadable}
        for old in list(saved)[:-_KEPT]:
            del saved[old]
        self._write()

    def resumed(self, step: int) -> None:
        """Tell that this session goes on from `step`: what the one before did after it is lost."""
        before = self._sessions[-2] if len(self._sessions) > 1 else None
        if before is None or before["settled"]:
            return
        kept = before["saved"].get(str(step), {"seconds": 0.0, "spent": {}})
        before["spent"] = {**kept["spent"], "lost": before["seconds"] - kept["seconds"]}
        before["settled"] = True
        self._write()

    def unreadable(self, step: int) -> tuple[int, int]:
        """What `saved` was told at a checkpoint, the last time; zeros where no session remembers it."""
        notes = (s["saved"][str(step)] for s in reversed(self._sessions) if str(step) in s["saved"])
        read, lost = next(notes, {}).get("unreadable", (0, 0))
        return read, lost

    def total(self) -> tuple[float, dict[str, float]]:
        """(seconds, {kind: seconds}) over all sessions up to now; `other` is what belongs to no kind."""
        self._write()
        seconds = sum(s["seconds"] for s in self._sessions)
        spent = {k: sum(s["spent"].get(k, 0.0) for s in self._sessions) for k in KINDS}
        return seconds, {**spent, "other": max(0.0, seconds - sum(spent.values()))}


def _nothing() -> dict:
    return {"seconds": 0.0, "spent": {}, "saved": {}, "settled": False}


def _close(session: dict, directory: Path) -> None:
    """Close the session of a process that was killed, at its last sign of life."""
    metrics = directory / "metrics.jsonl"
    if session["open"] and metrics.exists():
        session["seconds"] = max(session["seconds"], metrics.stat().st_mtime - session["clock"])
    session["open"] = False
