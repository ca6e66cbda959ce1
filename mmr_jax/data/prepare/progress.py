"""How far a run is: clips done, rate, time left, and how many times faster than real time."""

import time
from typing import Any

from rich import progress as bars
from rich.console import Console

from mmr_jax.data.prepare.shards import Spent

_SECONDS = 30.0  # between lines where there is no terminal to draw on


class Progress:
    """A bar on a terminal, a line now and then elsewhere. With `with`."""

    def __init__(self, clips: int, done: int, console: Console):
        self._console = console
        self._clips, self._done, self._before = clips, done, done
        self._began = self._told = time.monotonic()
        self._media = self._processor = 0.0
        columns = (
            "preparing",
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            "clips",
            bars.TextColumn("{task.fields[speed]}"),
            bars.TimeRemainingColumn(),
        )
        self._bar = bars.Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bar.add_task("", total=clips, completed=done, speed="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def add(self, spent: Spent) -> None:
        """Takes note of work done."""
        self._done += spent.clips + spent.before
        self._before += spent.before
        self._media += spent.media
        self._processor += spent.processor
        seconds = time.monotonic() - self._began
        rate = (self._done - self._before) / seconds
        speed = f"{rate:.1f} clips/s" + (f", {self._media / seconds:.1f} x real time" if self._media else "")
        self._bar.update(self._task, completed=self._done, speed=speed)
        if not self._console.is_terminal and time.monotonic() - self._told > _SECONDS:
            self._told = time.monotonic()
            left = (self._clips - self._done) / rate if rate else float("inf")
            line = f"{self._done} of {self._clips} clips, {speed}, {left:.0f} s left"
            self._console.print(line, markup=False)

    def speed(self) -> str:
        """What this run took, in a line; empty if it had nothing to do."""
        if not self._processor:
            return ""
        clips, seconds = self._done - self._before, time.monotonic() - self._began
        text = f"{clips} clips in {seconds:.0f} s, {clips / self._processor:.1f} per second of a core"
        if not self._media:  # pictures
            return text
        return f"{text}: {self._media:.0f} s of media, {self._media / self._processor:.1f} x real time per core"
