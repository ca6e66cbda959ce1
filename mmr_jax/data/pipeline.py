"""Pipelines: which records a step reads, in which order, and reading them ahead in threads.

The global batch of a training step is a pure function of (source, seed, step), and a host loads some rows of it. So
resuming needs the step alone, and another number of hosts sees the same data.

`rows` are the positions in the global batch that this host loads, ascending; None: all (train/sharding.py knows them).
"""

from collections.abc import Callable, Iterator

import grain
import numpy as np

from mmr_jax.data.draws import draws_at, order_at
from mmr_jax.data.prepare.workers import cores
from mmr_jax.data.source import Batch, Source, draw, map_batch, take
from mmr_jax.errors import UserError
from mmr_jax.seeds import fold_seed

THREADS = max(2, min(8, cores()))  # that read and decode; more of them wait for one another
AHEAD = 4  # batches that are read ahead, or as many as there are threads


def batch_at(source: Source, batch_size: int, seed: int, step: int, rows: np.ndarray | None = None) -> Batch:
    """This host's `rows` of the global batch of `step`.

    Example i of the batch is element `step * batch_size + i` of the endless shuffled sequence, or of the sequence that
    the source's own `order_at` gives. The same position decides what is random in reading it (crops).
    """
    positions = step * batch_size + _rows(source, batch_size, rows)
    own = getattr(source, "order_at", None)
    indices = own(seed, positions) if own else order_at(len(source), seed, positions)
    return draw(source, indices, draws_at(fold_seed(seed, "draws"), positions))


def train_iterator(
    source: Source,
    batch_size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    rows: np.ndarray | None = None,
    threads: int = THREADS,
) -> Iterator[Batch]:
    """Batches of the steps `start_step .. stop_step - 1`, in order, read ahead by `threads` threads.

    `threads=0` reads in the caller's thread. A record that cannot be read ends the iteration with its error.
    """
    _rows(source, batch_size, rows)  # refuse now, not at the first batch

    def make(step: int) -> Batch:
        return batch_at(source, batch_size, seed, step, rows)

    return _read_ahead(source, make, start_step, stop_step, threads)


def eval_batches(source: Source, batch_size: int, rows: np.ndarray | None = None) -> Iterator[Batch]:
    """Every record once over all hosts, in batches of one static shape, of which this host yields `rows`.

    Every host yields the same number of batches; what the last ones lack is padding: weight 0, nothing
    present, zero inputs, id -1.
    """
    rows, size = _rows(source, batch_size, rows), len(source)

    def make(step: int) -> Batch:
        indices = step * batch_size + rows
        return _pad(take(source, np.minimum(indices, size - 1)), valid=int((indices < size).sum()))

    return _read_ahead(source, make, 0, -(-size // batch_size), THREADS)


def _rows(source: Source, batch_size: int, rows: np.ndarray | None) -> np.ndarray:
    """Positions in the global batch that this host loads; refuses what cannot be batched."""
    if not len(source):
        raise UserError("the data source is empty: there is nothing to make batches of")
    if batch_size < 1:
        raise UserError(f"a batch size of {batch_size} is no batch: at least 1 is needed")
    return np.arange(batch_size) if rows is None else rows


def _pad(batch: Batch, valid: int) -> Batch:
    if valid == len(batch["id"]):
        return batch

    def blank(array: np.ndarray) -> np.ndarray:
        array[valid:] = 0
        return array

    batch = map_batch(blank, batch)
    batch["id"][valid:] = -1
    return batch


def _read_ahead(source: Source, make: Callable[[int], Batch], start: int, stop: int, threads: int) -> Iterator[Batch]:
    if start >= stop:
        return
    tally = getattr(source, "tally", None)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(AHEAD, threads))
    iterator = iter(grain.MapDataset.range(start, stop).map(make).to_iter_dataset(options))
    try:
        for batch in iterator:  # counted here, not in the threads: in the order of the steps
            yield tally.count(batch) if tally else batch
    finally:  # also when the caller stops early or a record raises: threads end with the batch in hand
        iterator.close()
