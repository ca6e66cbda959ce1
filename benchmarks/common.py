"""What the benchmarks share: their flags, the study they measure, the machine line, and interleaved timing."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax

from mmr_jax import config as configs
from mmr_jax.errors import UserError
from mmr_jax.study import Study

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def arguments(description: str) -> argparse.Namespace:
    """--config and --quick."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", help="config file; default: configs/digits.py where its data is, else quickstart")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repetitions")
    return parser.parse_args()


def study_of(path: str | None, **overrides) -> Study:
    """The study of a config file, by default of the first of the two configs whose data is there."""
    if path:
        return Study(configs.load(path, overrides), ".")
    digits = CONFIGS / "digits.py"
    try:
        study = Study(configs.load(digits, overrides), ".")
        study.dataset  # noqa: B018  refuses where the data is absent
        return study
    except UserError:
        return Study(configs.load(CONFIGS / "quickstart.py", overrides), ".")


def machine() -> str:
    """What the figures were measured on."""
    device = jax.devices()[0]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return (
        f"{os.cpu_count()} CPUs (load {load:.1f}), {len(jax.devices())} x {device.platform} {device.device_kind}, "
        f"jax {jax.__version__}"
    )


def interleaved(variants: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list]:
    """What each variant returned, run in turns (A B A B ..) so that other load on the machine hits all alike."""
    found = {name: [] for name in variants}
    for _ in range(repetitions):
        for name, run in variants.items():
            found[name].append(run())
    return found


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds until what `run` returns is ready."""
    begun = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begun


def median_ms(times: list[float]) -> float:
    """Median of seconds, in milliseconds."""
    return 1e3 * statistics.median(times)
