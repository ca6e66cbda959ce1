"""How fast steps are: the share of the devices' peak that they reach, and traces of some of them for xprof."""

from pathlib import Path

import jax

from mmr_jax.flops import count_flops
from mmr_jax.plan.chips import chip_of

# Dense bf16 FLOP per second by what the name of a GPU holds (the vendor's data sheets, SXM).
_GPUS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


def peak() -> float | None:
    """FLOP per second of all devices in bf16, None where it is not known (a CPU, another chip)."""
    kind = jax.devices()[0].device_kind
    chip = chip_of(kind)
    one = chip.flops / chip.devices if chip else next((f for name, f in _GPUS.items() if name in kind), None)
    return one and one * jax.device_count()


def share_of_peak(step, *arguments) -> float | None:
    """What one step per second would be of the peak; None where that is not known. Traces `step`, runs nothing."""
    most = peak()
    return most and count_flops(step, *arguments).total / most


class Trace:
    """A trace of the steps first to last of a job, in `directory`/profile; of none where `steps` is None."""

    def __init__(self, directory: Path, steps: tuple[int, int] | None):
        self._steps, self._folder, self._runs = steps or (0, -1), str(directory / "profile"), False

    def before(self, step: int) -> None:
        """Called before a step is handed to the devices."""
        first, last = self._steps
        if not self._runs and first <= step <= last:
            jax.profiler.start_trace(self._folder)
            self._runs = True

    def after(self, step: int, made) -> None:
        """Called after it; `made` are arrays that it computes."""
        if self._runs and step >= self._steps[1]:
            jax.block_until_ready(made)
            self.close()

    def close(self) -> None:
        """Write what there is, also when a run ends early."""
        if self._runs:
            jax.profiler.stop_trace()
            self._runs = False
            print(f"trace of the steps up to {self._steps[1]}: {self._folder} (xprof --logdir={self._folder})")
