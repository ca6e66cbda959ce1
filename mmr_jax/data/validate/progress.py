"""How many records are read, and the time left: a bar on a terminal, a line now and then elsewhere."""

import time
from typing import Any

from rich import progress as bars
from rich.console import Console

_SECONDS = 30.0  # between lines where there is no terminal to draw on


class Progress:
    """With `with`."""

    def __init__(self, records: int, console: Console):
        self._console, self._records, self._read = console, records, 0
        self._began = self._told = time.monotonic()
        columns = (
            "reading",
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            "records,",
            bars.TimeRemainingColumn(),
            "left",
        )
        self._bar = bars.Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bar.add_task("", total=records)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def add(self, records: int) -> None:
        """Takes note of records read."""
        self._read += records
        self._bar.update(self._task, completed=self._read)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._told > _SECONDS:
            self._told = now
            left = (self._records - self._read) * (now - self._began) / self._read
            self._console.print(f"{self._read} of {self._records} records, {left:.0f} s left", markup=False)
