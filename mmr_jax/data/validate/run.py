"""mmr validate-data as a function: reads a prepared folder and writes a report beside it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mmr_jax.data.prepare.workers import Pool, cores
from mmr_jax.data.prepared.folder import Folder
from mmr_jax.data.validate import examples, reading, report
from mmr_jax.data.validate.facts import DAMAGED
from mmr_jax.data.validate.read import Job
from mmr_jax.data.validate.summary import summarize
from mmr_jax.errors import UserError
from mmr_jax.progress import Progress
from mmr_jax.train import interrupt

_SEED = 0  # of the share that is read


def validate(
    path: str | Path, out: str | Path | None = None, share: float = 1.0, mels: int = 128, window: str = "hamming"
) -> dict[str, Any]:
    """Reads `share` of every split, prints tables and writes index.html and report.json; returns the latter's content.

    `out`: default PATH-report. UserError if there is no such data set, and, once the report is written, if records are
    damaged; Interrupted after SIGINT or SIGTERM.
    """
    if not 0 < share <= 1:
        raise UserError(f"--share={share:g} must be above 0 and at most 1")
    if mels < 1:
        raise UserError(f"--mels={mels} must be at least 1")
    folder, console = Folder(path), Console(highlight=False, soft_wrap=True)
    out = _out(folder.path, out)
    chosen = {name: (split, _rows(len(split), share)) for name, split in _splits(folder).items()}
    settings = folder.info["settings"]
    job = Job(str(folder.path), settings["rate"], settings["frames"], mels, window)
    records = sum(len(rows) for _, rows in chosen.values())
    with interrupt.handled(), Pool(cores()) as pool:
        with Progress("records", records, console=console) as progress:
            facts = reading.read(pool, job, chosen, list(folder.classes), progress)
        indexes = {name: split.index for name, (split, _) in chosen.items()}
        about = {"folder": str(folder.path), **{key: folder.info[key] for key in ("name", "title", "notes", "digest")}}
        about |= {"settings": settings, "share": share, "mels": mels, "window": window}
        found = about | summarize(folder, indexes, facts)
        pictures = examples.draw_all(pool, job, chosen, found["suspicious"])
    page = report.write(out, found, pictures)
    report.show(found, console)
    console.print(f"report: {page}", markup=False)
    _refuse_damaged(found, chosen, page)
    return found


def _splits(folder: Folder) -> dict[str, Any]:
    """The splits, largest first, with their indexes checked."""
    splits = sorted(folder.splits, key=lambda split: (-len(split), split.name))
    for split in splits:
        split.index.check()
    return {split.name: split for split in splits}


def _rows(size: int, share: float) -> np.ndarray:
    """Ascending rows int64: all, or a random share of them, the same in every run."""
    if share == 1 or not size:
        return np.arange(size)
    return np.sort(np.random.default_rng(_SEED).choice(size, math.ceil(share * size), replace=False))


def _out(folder: Path, out: str | Path | None) -> Path:
    folder = folder.resolve()
    out = Path(out).expanduser() if out else folder.with_name(f"{folder.name}-report")
    if folder in (out.resolve(), *out.resolve().parents):
        raise UserError(f"--out={out} lies in the data set; give a folder outside of {folder}")
    return out


def _refuse_damaged(found: dict[str, Any], chosen: reading.Chosen, page: Path) -> None:
    damaged = found["suspicious"].get(DAMAGED)
    if damaged:
        first = damaged["first"][0]
        place = chosen[first["split"]][0].place(first["row"])
        read = sum(split["read"] for split in found["splits"].values())
        raise UserError(
            f"{damaged['count']} of {read} records cannot be read, the first is {place}: {first['detail']}; the others "
            f"are in {page}; delete the folder and run mmr prepare again"
        )
