"""What `mmr verify` checks in a workdir."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmr_jax.errors import UserError
from mmr_jax.study import DONE, read_record
from mmr_jax.train import digests
from mmr_jax.train.checkpoint import examine
from mmr_jax.train.digests import Damaged


class Item(NamedTuple):
    """One thing that is kept: `status` is intact, damaged, or set aside (found damaged by an earlier run)."""

    name: str
    status: str
    size: str = ""
    reason: str = ""


def verify(workdir: Path) -> list[Item]:
    """Every directory of arrays, record and npz file under `workdir`, in order of their names."""
    stages = [p for pattern in ("stages", "points/*/stages") for p in Path(workdir).glob(pattern)]
    if not stages:
        raise UserError(f"{workdir} holds no study: there is no folder stages in it")
    return [item for folder in sorted(stages) for path in _kept(folder) for item in _item(path, workdir)]


def _kept(folder: Path) -> list[Path]:
    """Paths that hold something to check."""
    orbax = {p.parent for name in ("_CHECKPOINT_METADATA", digests.PATTERN) for p in folder.rglob(name)}
    steps = {p for p in folder.rglob("checkpoints/*") if p.name.isdecimal() and p.is_dir() and any(p.iterdir())}
    files = [p for p in folder.rglob("*") if p.name == DONE or p.suffix == ".npz"]
    unfinished = {p for p in orbax if "orbax-checkpoint-tmp" in str(p) or p.name.startswith("trash-")}
    return sorted({*orbax, *steps, *files} - unfinished)


def _item(path: Path, workdir: Path) -> Iterator[Item]:
    name = str(path.relative_to(workdir))
    if path.name.startswith("damaged-"):
        yield Item(name, "set aside")
        return
    if path.is_dir() and path.with_name(f"{path.name}.saving").exists() and not digests.complete(path):
        return  # a save that is under way or was cut off: the run does without it
    try:
        size = _check(path)
    except (Damaged, UserError, zipfile.BadZipFile) as error:
        if path.exists():  # a run may have deleted it meanwhile
            yield Item(name, "damaged", "", str(error))
        return
    yield Item(name, "intact", _bytes(size))


def _check(path: Path) -> int:
    """Bytes of what is intact; raises for what is not."""
    if path.is_dir():
        return examine(path)[1]
    if path.name == DONE:
        read_record(path)
    else:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise Damaged(f"{broken} in it differs from its checksum")
    return path.stat().st_size


def _bytes(size: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
