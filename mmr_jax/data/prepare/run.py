"""mmr prepare as a function: from a listing and a folder of media to a prepared data set."""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmr_jax.data.media import require
from mmr_jax.data.prepare import index, local, summary, work
from mmr_jax.data.prepare.listing import Listing
from mmr_jax.data.prepare.plan import Job, Piece, Plan, Shard, make_plan
from mmr_jax.data.prepare.progress import Progress
from mmr_jax.data.prepare.records import read_info
from mmr_jax.data.prepare.settings import Settings
from mmr_jax.data.prepare.shards import facts_path
from mmr_jax.data.prepare.workers import cores
from mmr_jax.errors import UserError
from mmr_jax.files import write_text
from mmr_jax.train import interrupt

_PIECE = 8  # clips at most
_PIECES_PER_PROCESS = 4  # at least, where there are clips enough

Execute = Callable[[Job, dict[Shard, list[Piece]], Progress], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides whether and how, but not what.

    `processes` 0: one per core. `execute` has the work done elsewhere. `max_failed` is the share of clips lost whole
    above which nothing is published.
    """

    processes: int = 0
    max_failed: float = 0.1
    execute: Execute | None = None

    def __post_init__(self):
        if not 0 <= self.max_failed <= 1:
            raise UserError(f"--max_failed={self.max_failed} must be between 0 and 1")
        if self.processes < 0:
            raise UserError(f"--processes={self.processes} must be at least 1, or 0 for one per core")

    @property
    def workers(self) -> int:
        return self.processes or cores()


def prepare(
    listing: Listing,
    media: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    clips_per_shard: int = 256,
    splits: Sequence[str] = (),
    modalities: Sequence[str] = (),
    options: Options | None = None,
) -> dict[str, Any]:
    """Prepares `listing` into the folder `out` and returns its prepared.json.

    UserError if too many clips are lost whole, if `out` holds something else or cannot be written; Interrupted after
    SIGINT or SIGTERM. After these, and after any other end, the same call goes on where it stopped.
    """
    media, out, options = Path(media), Path(os.path.abspath(out)), options or Options()
    plan = make_plan(listing, settings or Settings(), clips_per_shard, splits, modalities)
    _check_reading(plan, media)
    if not work.is_made(out, plan):
        with interrupt.handled(), work.locked(out) as place:
            if not work.is_made(out, plan):  # else by another command, just now
                _make(plan, media, out, place, options)
                return read_info(out)
    work.clear(work.partial(out))
    note = "is made already from the same listing and settings (whatever --media says now)"
    _console().print(f"{out} {note}", markup=False)
    return read_info(out)


def _make(plan: Plan, media: Path, out: Path, place: Path, options: Options) -> None:
    work.begin(place, plan, media)
    job = Job(place, media.absolute(), plan.settings, plan.schema)
    size = max(1, min(_PIECE, plan.clips // (options.workers * _PIECES_PER_PROCESS)))
    shards = {shard: plan.pieces(shard, size) for shard in plan.shards() if not facts_path(place, shard).exists()}
    missing = sum(len(piece.clips) for pieces in shards.values() for piece in pieces)
    with Progress(plan.clips, plan.clips - missing, _console()) as progress:
        execute = options.execute or functools.partial(local.execute, processes=options.workers)
        execute(job, shards, progress)
    splits = [index.made(place, plan, split) for split in plan.splits]
    _check_failures(plan, splits, place, out, options.max_failed)
    text = summary.text(plan, splits)
    write_text(place / "set" / "summary.txt", text)
    index.write_files(place / "set", plan, splits)
    local.look()
    work.publish(place, out)
    _beside(out).unlink(missing_ok=True)
    _console().print("\n".join(filter(None, (text.rstrip(), progress.speed(), str(out)))), markup=False)


def _check_reading(plan: Plan, media: Path) -> None:
    """What would else be found out clip by clip."""
    if not {"audio", "frames"} & set(plan.listing.modalities):
        return
    if not media.is_dir():
        raise UserError(f"--media={media} is no folder")
    require("av", "media")
    if "audio" in plan.listing.modalities:
        require("soxr", "media")


def _check_failures(plan: Plan, splits: list[index.Made], place: Path, out: Path, max_failed: float) -> None:
    """UserError if too much is lost; the shards at fault are forgotten, so that they are prepared again."""
    found = index.failures(plan, splits)
    of_listing = index.lost(failure for failure in found if not failure[1])
    whole = plan.clips == len(plan.listing.clips)  # if only some splits are made, whose the listing's problems are
    lost, clips = index.lost(found) - of_listing * (not whole), plan.clips + of_listing * whole
    empty = [split.name for split in splits if not split.counts()["kept"]]
    if lost <= max_failed * clips and not empty:
        return
    index.write_failures(_beside(out), found)
    reason, count = collections.Counter(f[3] for f in found if index.lost([f])).most_common(1)[0]
    what = f"no clip of {empty[0]} is left" if empty else f"{lost} of {clips} clips are lost whole"
    again = work.forget(place, plan, splits)
    mend = f"mend the list and delete {place}"
    if again:
        mend = f"mend the media and run the same command again, which prepares shards with lost clips anew ({again})"
    raise UserError(
        f"{what}, most of them: {reason} ({count}); {_beside(out)} has all. Nothing is published: {mend}"
        + ("" if empty else f", or raise --max_failed={max_failed:g}")
    )


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.failures.csv")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
