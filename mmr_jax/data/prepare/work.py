"""The folder that a run works in, OUT.partial: one command at a time, and always the same one, until it becomes OUT.

plan.json   what the result depends on
lock        held by the command that is at work
pieces/     what single processes have done
facts/      of shards that are whole
set/        the shards and, at last, all other files; renamed to OUT
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmr_jax.data.prepare.index import Made
from mmr_jax.data.prepare.layout import INFO
from mmr_jax.data.prepare.plan import Plan
from mmr_jax.data.prepare.records import read_info
from mmr_jax.data.prepare.shards import facts_path
from mmr_jax.errors import UserError
from mmr_jax.files import read_json, write_text
from mmr_jax.workdir_lock import hold

_LISTING = "the listing (manifest or label files)"


def partial(out: Path) -> Path:
    """OUT.partial."""
    return out.with_name(f"{out.name}.partial")


def is_made(out: Path, plan: Plan) -> bool:
    """Whether `out` is there already, made from the same; UserError if it is something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / INFO).is_file():
        raise UserError(f"{out} exists and is no prepared data set; give another --out")
    changes = _changes(read_info(out).get("made_from", {}), plan.facts)
    if changes:
        raise UserError(f"{out} was made from something else: {changes}; give another --out, or remove it")
    return True


@contextlib.contextmanager
def locked(out: Path) -> Iterator[Path]:
    """OUT.partial, for this command alone; UserError if another one is at work in it."""
    work = partial(out)
    descriptor = hold(work / "lock")
    if descriptor is None:
        raise UserError(f"another mmr prepare is at work in {work}; wait for it or give another --out")
    try:
        yield work
    finally:
        os.close(descriptor)


def begin(work: Path, plan: Plan, media: Path) -> None:
    """Makes the folders, or finds them as they were left; UserError if they are those of another set."""
    _check_same(work, {**plan.facts, "media": str(media.absolute())})
    for name in ("pieces", "facts", "set"):
        (work / name).mkdir(exist_ok=True)
        _sweep(work / name)


def forget(work: Path, plan: Plan, splits: Iterable[Made]) -> int:
    """Has the shards in which clips are lost whole prepared again by the next run; how many they are."""
    shards = [
        shard
        for split in splits
        for shard, facts in zip(plan.shards(split.name), split.facts, strict=True)
        if any(modality == "clip" for _, modality, _, _ in facts["problems"])
    ]
    for shard in shards:
        facts_path(work, shard).unlink()
    return len(shards)


def publish(work: Path, out: Path) -> None:
    """The finished set becomes OUT, whole."""
    _sweep(work / "set")
    (work / "set").rename(out)
    clear(work)


def clear(work: Path) -> None:
    """Removes what is left of the work on a set that is published."""
    if not (work / "set").exists():
        shutil.rmtree(work, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes what processes left that were killed while they wrote."""
    for left in folder.glob("*.tmp-*"):
        left.unlink()


def _check_same(work: Path, facts: dict[str, Any]) -> None:
    path = work / "plan.json"
    if not path.exists():
        write_text(path, json.dumps(facts, indent=1, sort_keys=True))
        return
    changes = _changes(read_json(path), facts)
    if changes:
        raise UserError(f"{work} was begun with something else: {changes}; delete it, or give another --out")


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs, in words; empty if nothing does."""
    changed = [key for key in now if before.get(key) != now[key]]
    words = [f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in changed if key != "listing"]
    if "listing" in changed:
        words.append(f"{_LISTING} has changed")
    return ", ".join(words)
