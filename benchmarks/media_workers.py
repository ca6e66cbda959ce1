"""Reading threads and worker processes against each other, for benchmarks/media.py."""

import functools
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import grain
from absl import flags
from rich.table import Table

from mmr_jax.data.pipeline import AHEAD, batch_at, train_iterator
from mmr_jax.data.source import Batch, Source

BATCH = 32
TICK = os.sysconf("SC_CLK_TCK")


def in_processes(source: Source, stop: int, count: int) -> Iterator[Batch]:
    """The batches of `train_iterator`, read by grain's worker processes."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # else grain reads the command line
    make = functools.partial(batch_at, source, BATCH, 0)
    read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
    options = grain.MultiprocessingOptions(num_workers=count, per_worker_buffer_size=AHEAD)
    return iter(grain.MapDataset.range(stop).map(make).to_iter_dataset(read).mp_prefetch(options))


def run(source: Source, threads: int, processes: int, steps: int) -> tuple[float, float]:
    """(wall-clock, processor) seconds per clip, after a start of as many batches as are read ahead."""
    warm = AHEAD * max(1, processes) + threads
    stop = 2 * warm + steps  # what is read ahead in the end is paid for, as that in the beginning is not
    batches = in_processes(source, stop, processes) if processes else None
    batches = batches or train_iterator(source, BATCH, 0, 0, stop, threads=threads)
    for _ in range(warm):
        next(batches)
    wall, spent = time.perf_counter(), _spent()
    for _ in range(steps):
        next(batches)
    found = (time.perf_counter() - wall) / (steps * BATCH), (_spent() - spent) / (steps * BATCH)
    batches.close()
    return found


def _spent() -> float:
    """Processor seconds of this process and of its children that run."""
    return time.process_time() + sum(_ticks(child.pid) for child in multiprocessing.active_children()) / TICK


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def workers(sources: dict[str, Source], steps: int, repetitions: int) -> Table:
    """Variants run in turns; the speed is relative to one thread."""
    variants = {"1 thread": (1, 0), "2 threads": (2, 0), "4 threads": (4, 0)}
    variants |= {"1 process": (0, 1), "2 processes": (0, 2)}
    table = Table("", "", "processor ms per clip", "cores kept busy", "speed", title="threads and processes")
    for source_name, source in sources.items():
        found = {name: [] for name in variants}
        for _ in range(max(3, repetitions // 2)):
            for name, (threads, processes) in variants.items():
                found[name].append(run(source, threads, processes, 4 * steps))
        first = statistics.median(wall for wall, _ in found["1 thread"])
        for name, times in found.items():
            wall, spent = (statistics.median(t[i] for t in times) for i in (0, 1))
            table.add_row(source_name, name, f"{1e3 * spent:.2f}", f"{spent / wall:.2f}", f"{first / wall:.2f}")
        table.add_section()
    return table
