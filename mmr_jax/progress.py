"""How far a long task is, and the time left: a bar on a terminal, a line now and then elsewhere."""

import time
from typing import Any

from rich import progress as bars
from rich.console import Console

_SECONDS = 15.0  # between lines where there is no terminal to draw on


class Progress:
    """`done` of `total` `unit`s (clips, say), drawn from now on until `close`, or within a `with`."""

    def __init__(self, unit: str, total: int, done: int = 0, console: Console | None = None, name: str = ""):
        self._unit, self._total, self._done, self._before = unit, total, done, done
        self._name, self._console = name, console or Console()
        self._began = self._told = time.monotonic()
        columns = (
            *((bars.TextColumn("{task.description}"),) if name else ()),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            unit,
            bars.TextColumn("{task.fields[note]}"),
            bars.TimeRemainingColumn(),
        )
        drawn = self._console.is_terminal
        self._bar = bars.Progress(*columns, console=self._console, disable=not drawn, transient=True)
        self._task = self._bar.add_task(name, total=total, completed=done, note="")
        self._bar.start()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return max(time.monotonic() - self._began, 1e-9)

    @property
    def rate(self) -> float:
        """Units per second, without those that were found done."""
        return (self._done - self._before) / self.seconds

    def count(self, done: int, before: int = 0) -> None:
        """Takes note of units that are done and of units that were found done."""
        self._done += done + before
        self._before += before

    def tell(self, note: str = "") -> None:
        """Draws the bar, or prints a line if the last one is a while ago."""
        self._bar.update(self._task, completed=self._done, note=note)
        if self._console.is_terminal or time.monotonic() - self._told <= _SECONDS:
            return
        self._told = time.monotonic()
        left = (self._total - self._done) / self.rate if self.rate else float("inf")
        parts = (f"{self._done} of {self._total} {self._unit}", note, f"{left:.0f} s left")
        head = f"{self._name}: " if self._name else ""
        self._console.print(head + ", ".join(filter(None, parts)), markup=False, highlight=False)
