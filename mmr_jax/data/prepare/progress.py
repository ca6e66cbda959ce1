"""How far a run is: clips done, rate, time left, and how many times faster than real time."""

from rich.console import Console

from mmr_jax import progress
from mmr_jax.data.prepare.shards import Spent


class Progress(progress.Progress):
    """Of clips."""

    def __init__(self, clips: int, done: int, console: Console):
        super().__init__("clips", clips, done, console)
        self._media = self._processor = 0.0

    def add(self, spent: Spent) -> None:
        """Takes note of work done."""
        self.count(spent.clips, spent.before)
        self._media += spent.media
        self._processor += spent.processor
        faster = f", {self._media / self.seconds:.1f} x real time" if self._media else ""
        self.tell(f"{self.rate:.1f} clips/s{faster}")

    def speed(self) -> str:
        """What this run took, in a line; empty if it had nothing to do."""
        if not self._processor:
            return ""
        clips = self._done - self._before
        text = f"{clips} clips in {self.seconds:.0f} s, {clips / self._processor:.1f} per second of a core"
        if not self._media:  # pictures
            return text
        return f"{text}: {self._media:.0f} s of media, {self._media / self._processor:.1f} x real time per core"
