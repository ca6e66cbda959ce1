"""What a run says while it works: metrics to JSON lines (and TensorBoard when installed), progress to the terminal."""

import json
import math
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY_S = 15.0


def _tensorboard(directory: Path):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory))


class MetricLog:
    """`metrics.jsonl`, one object per logged step. Rows after the step from which a run resumes are dropped first."""

    def __init__(self, directory: Path, resumed_at: int = 0, tensorboard: bool = True):
        self.path = Path(directory) / "metrics.jsonl"
        rows = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [r for r in rows if _step_of(r) is not None and _step_of(r) <= resumed_at]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(r + "\n" for r in kept))
        temporary.replace(self.path)
        self._file = self.path.open("a")
        self._board = _tensorboard(Path(directory)) if tensorboard else None

    def write(self, step: int, values: dict) -> None:
        """Append one row; values that are not finite become null (JSON has no NaN)."""
        row = {k: (float(v) if math.isfinite(v) else None) for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        for name, value in row.items() if self._board else ():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._board:
            self._board.close()


def _step_of(row: str) -> int | None:
    """The step of a row; None for a line that a kill cut off."""
    try:
        return json.loads(row)["step"]
    except (json.JSONDecodeError, KeyError):
        return None


class StageProgress:
    """Progress of one stage with rate and time left: a bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, name: str, total: int, start: int, batch_size: int, console: Console | None = None):
        self.name, self.total, self.start, self.batch_size = name, total, start, batch_size
        self.console = console or Console()
        self.begun = self.said = time.monotonic()
        self.waited = 0.0
        self.bar = None
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console, transient=True)
            self.task = self.bar.add_task(name, total=total, completed=start, note="")
            self.bar.start()

    def update(self, step: int, loss: float) -> None:
        """Tell that `step` steps are done."""
        if self.bar:
            self.bar.update(self.task, completed=step, note=self._note(step, loss))
        elif time.monotonic() - self.said > PLAIN_EVERY_S:
            self.said = time.monotonic()
            left = (self.total - step) * (self.said - self.begun) / max(step - self.start, 1)
            note = self._note(step, loss)
            self.console.print(f"{self.name}: {step}/{self.total}, {note}, {left:.0f} s left", highlight=False)

    def _note(self, step: int, loss: float) -> str:
        seconds = max(time.monotonic() - self.begun, 1e-9)
        rate = (step - self.start) * self.batch_size / seconds
        return f"loss {loss:.3f}, {rate:.0f} examples/s, data wait {100 * self.waited / seconds:.0f} %"

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
