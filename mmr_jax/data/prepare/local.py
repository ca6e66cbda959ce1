"""The work shared out to processes of this machine."""

import math
import signal
from collections.abc import Iterable

from mmr_jax.data.prepare.plan import Job, Piece, Shard
from mmr_jax.data.prepare.progress import Progress
from mmr_jax.data.prepare.shards import Spent, merge_shard, write_piece
from mmr_jax.data.prepare.workers import Crashed, Done, Pool, Task
from mmr_jax.errors import UserError
from mmr_jax.train import interrupt

LIMIT = 600.0  # seconds for a clip, after which its decoder is taken to go on for ever
_FAULTS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)  # a codec's own


def execute(job: Job, shards: dict[Shard, list[Piece]], progress: Progress, processes: int) -> None:
    """Makes every shard from its pieces.

    A worker that dies does not end the run: when all else is done, the clips it had are tried one by one with nothing
    beside them, and the clip at fault is noted. Interrupted after SIGINT or SIGTERM (within `interrupt.handled`).
    """
    board = _Board(job, shards, progress)
    with Pool(processes, seconds) as pool:
        dead = pool.run(board.tasks(), board.done, look)
    with Pool(1, seconds) as pool:
        for task, _ in dead:
            if task[0] is write_piece:
                one_by_one(pool, job, board.split(task[1][1]), board.done)
            else:
                for again, crash in pool.run([task], board.done, look):
                    raise _fatal(again, crash)


def look() -> None:
    """Interrupted if a signal came."""
    interrupt.check("a point from which it can go on")


def singles(piece: Piece) -> list[Piece]:
    """The clips of a piece as pieces of their own."""
    return [Piece(piece.shard, piece.first + i, (clip,)) for i, clip in enumerate(piece.clips)]


def seconds(task: Task) -> float:
    """What a task may take; a pool's limit."""
    return LIMIT * len(task[1][1].clips) if task[0] is write_piece else math.inf


def one_by_one(pool: Pool, job: Job, pieces: list[Piece], done: Done = lambda task, spent: (), look=look) -> None:
    """Prepares pieces of one clip each, in a pool of one worker; a clip that its decoder fails on becomes a failure.

    UserError for what is no decoder's fault, so that what is written depends on the media alone.
    """
    dead = pool.run([(write_piece, (job, piece)) for piece in pieces], done, look)
    notes = [(write_piece, (job, task[1][1], _fault(task, crash))) for task, crash in dead]
    for task, crash in pool.run(notes, done, look):
        raise _fatal(task, crash)


def _fault(task: Task, crash: Crashed) -> str:
    """What to note of the clip that a decoder failed on; raises UserError if it was something else."""
    if task[0] is write_piece and not crash.number:
        return str(crash)
    if task[0] is write_piece and crash.number in _FAULTS:
        return f"the decoder crashed ({crash})"
    raise _fatal(task, crash)


def _fatal(task: Task, crash: Crashed) -> UserError:
    what = task[1][1]
    name = f"clip {what.clips[0].id} ({what.clips[0].media})" if isinstance(what, Piece) else what.filename
    return UserError(
        f"the process that prepared {name} was killed ({crash}), as happens where memory runs out. Nothing is "
        "published: give fewer --processes, or end other programs, and run the same command again"
    )


class _Board:
    """Which pieces are done: a shard is put together as soon as all of it is there."""

    def __init__(self, job: Job, shards: dict[Shard, list[Piece]], progress: Progress):
        self._job = job
        self._shards = shards
        self._progress = progress
        self._left = {shard: len(pieces) for shard, pieces in shards.items()}

    def tasks(self) -> Iterable[Task]:
        """All pieces, shard after shard."""
        return ((write_piece, (self._job, piece)) for pieces in self._shards.values() for piece in pieces)

    def split(self, piece: Piece) -> list[Piece]:
        """Its clips as pieces, which take its place."""
        pieces = self._shards[piece.shard]
        at = pieces.index(piece)
        pieces[at : at + 1] = singles(piece)
        self._left[piece.shard] += len(piece.clips) - 1
        return pieces[at : at + len(piece.clips)]

    def done(self, task: Task, spent: Spent) -> list[Task]:
        """Takes note of a task; what can be done now that it is."""
        self._progress.add(spent)
        if task[0] is merge_shard:
            return []
        shard = task[1][1].shard
        self._left[shard] -= 1
        return [] if self._left[shard] else [(merge_shard, (self._job, shard, self._shards[shard]))]
