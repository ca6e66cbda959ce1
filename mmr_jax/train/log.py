"""What a run says while it works: metrics to JSON lines (and TensorBoard when installed), progress to the terminal."""

import json
import math
import time
from pathlib import Path

from rich.console import Console

from mmr_jax.files import write_text
from mmr_jax.progress import Progress

METRICS = "metrics.jsonl"


def _tensorboard(directory: Path):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory))


class MetricLog:
    """`metrics.jsonl`, one object per logged step. Rows after the step from which a run resumes are dropped first."""

    def __init__(self, directory: Path, resumed_at: int = 0, tensorboard: bool = True):
        self.path = Path(directory) / METRICS
        rows = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [r for r in rows if (step := _step_of(r)) is not None and step <= resumed_at]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, "".join(r + "\n" for r in kept))
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


class StageProgress(Progress):
    """Of the steps of one stage: examples a second, the share of the devices' peak that they reach, where it is known
    (`share`: what one step per second would be), and how long they waited for data (`waited`, seconds)."""

    def __init__(self, name: str, total: int, start: int, batch_size: int, console: Console | None = None):
        super().__init__("steps", total, start, console, name)
        self.waited, self.share = 0.0, None
        self._batch_size, self._compiled = batch_size, False

    def update(self, step: int, loss: float) -> None:
        """Tell that `step` steps are done."""
        if not self._compiled:  # the first step fills the pipeline, too: the clock starts after it
            self._began, self.waited, self._compiled = time.monotonic(), 0.0, True
            return self.count(0, step - self._done)
        self.count(step - self._done)
        wait = 100 * self.waited / self.seconds
        peak = f"{100 * self.share * self.rate:.0f} % of peak, " if self.share else ""
        self.tell(f"loss {loss:.3f}, {self.rate * self._batch_size:.0f} examples/s, {peak}data wait {wait:.0f} %")
