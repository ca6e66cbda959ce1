"""The work as an Apache Beam pipeline, for any of its runners.

Pieces are prepared wherever the runner likes, and gathered by shard to be put together. Media and the work's folder
must be on a file system that all of its machines see under the same path.
"""

import contextlib
import functools
import pickle
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mmr_jax.data.media import require
from mmr_jax.data.prepare import local
from mmr_jax.data.prepare.plan import Job, Piece, Shard
from mmr_jax.data.prepare.progress import Progress
from mmr_jax.data.prepare.shards import Spent, facts_path, merge_shard, write_piece
from mmr_jax.data.prepare.workers import Pool
from mmr_jax.errors import Interrupted, UserError
from mmr_jax.files import write_bytes

beam = require("apache_beam", "beam")
PipelineOptions = require("apache_beam.options.pipeline_options", "beam").PipelineOptions
create_runner = require("apache_beam.runners.runner", "beam").create_runner

_LOOK = 10.0  # seconds between looks at what is done


def executor(runner: str, options: Sequence[str] = ()) -> functools.partial:
    """What `run.Options.execute` takes; `options` are Beam's own, "--name=value". UserError for an unknown runner."""
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"--runner={runner}: {' '.join(str(error).split())}") from None
    return functools.partial(execute, flags=[f"--runner={runner}", *options])


def execute(job: Job, shards: dict[Shard, list[Piece]], progress: Progress, flags: list[str]) -> None:
    """Makes every shard from its pieces. Interrupted at once after SIGINT or SIGTERM: Beam does not look at flags."""
    if not shards:
        return
    files = [_put(job, shard, pieces) for shard, pieces in shards.items()]
    with _stopped(), _told(job, shards, progress), beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        pieces = pipeline | beam.Create(files) | beam.FlatMap(_get) | beam.Reshuffle()
        done = pieces | beam.ParDo(_Prepare(job)) | beam.GroupByKey()
        _ = done | beam.MapTuple(functools.partial(_merge, job))


def _put(job: Job, shard: Shard, pieces: list[Piece]) -> str:
    """The pieces as a file: runners limit the size of what is in the pipeline itself."""
    path = job.work / "pieces" / f"{shard.filename}.pickle"
    write_bytes(path, pickle.dumps(pieces))
    return str(path)


def _get(path: str) -> list[Piece]:
    return pickle.loads(Path(path).read_bytes())


class _Prepare(beam.DoFn):
    """Pieces to (name of the shard, piece); each instance has a process of its own, which a codec may kill."""

    def __init__(self, job: Job):
        self._job = job

    def setup(self) -> None:
        self._pool = Pool(1, local.seconds)

    def process(self, piece: Piece) -> Iterator[tuple[str, Piece]]:
        done = [piece]
        if self._pool.run([(write_piece, (self._job, piece))], lambda task, spent: (), lambda: None):
            done = local.singles(piece)
            local.one_by_one(self._pool, self._job, done, look=lambda: None)
        for part in done:
            yield part.shard.filename, part

    def teardown(self) -> None:
        self._pool.close()


def _merge(job: Job, name: str, pieces: Iterable[Piece]) -> None:
    ordered = sorted(pieces, key=lambda piece: piece.first)
    merge_shard(job, ordered[0].shard, ordered)


@contextlib.contextmanager
def _told(job: Job, shards: dict[Shard, list[Piece]], progress: Progress) -> Iterator[None]:
    """Within: progress by the shards that are whole, for of what workers elsewhere do nothing else is known here."""
    ended, left = threading.Event(), {shard: sum(len(p.clips) for p in pieces) for shard, pieces in shards.items()}

    def tell() -> None:
        while not ended.wait(_LOOK):
            for shard in [s for s in left if facts_path(job.work, s).exists()]:
                progress.add(Spent(left.pop(shard)))

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _stopped() -> Iterator[None]:
    """Within: signals end the run. What is finished lies in the folder."""
    before = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted. Repeat the same command to go on from there") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
