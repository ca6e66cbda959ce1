"""Finding label files and media files."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mmr_jax.data.prepare.listing import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Label
from mmr_jax.errors import UserError, nearest

_BESIDE = frozenset((".json", ".jsonl", ".txt", ".csv", ".tsv", ".xml", ".vtt", ".srt", ".part", ".ytdl", ".align"))
_RANKS = (VIDEO_SUFFIXES, AUDIO_SUFFIXES, IMAGE_SUFFIXES)

Media = Mapping[str, Sequence[str]]  # paths relative to the media folder by stem, the best first


def find_media(folder: Path) -> dict[str, list[str]]:
    """The files below `folder` by stem, as sorted relative paths: containers before audio before images before others.

    Files that downloads leave beside media (.json, .part and the like) and hidden ones are left out. Links are
    followed. UserError if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"media folder {folder} does not exist")
    found: dict[str, list[tuple[int, str]]] = {}
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        below = os.path.relpath(root, folder)
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix and suffix.lower() not in _BESIDE and not name.startswith("."):
                path = name if below == "." else f"{below}/{name}"
                found.setdefault(stem, []).append((_rank(suffix.lower()), path))
    return {stem: [path for _, path in sorted(paths)] for stem, paths in found.items()}


def video_cut(found: Media, video: str, start: float, end: float, missing: str) -> tuple[str, float, float | None]:
    """(media, start, end) of the part of a video from `start` to `end` seconds.

    A file whose name has the times is that part already: {video}_{start}_{end} or {video}_{start}, in whole
    milliseconds, in seconds, or in seconds of six digits. A file {video} is the whole video, to be cut. `missing` is
    the path to give where there is neither.
    """
    for stem in _stems(video, start, end):
        if stem in found:
            return found[stem][0], 0.0, None
    if video in found:
        return found[video][0], start, end
    return missing, 0.0, None


def find_labels(labels: Path, title: str, *groups: Sequence[str]) -> list[Path | None]:
    """From each group of file names the first that is in the folder, or None; UserError if there is none at all."""
    found = [first(labels, names) for names in groups]
    if not any(found):
        names = ", ".join(dict.fromkeys(name for group in groups for name in group))
        raise UserError(f"{labels} holds no label file of {title}; looked for {names}")
    return found


def first(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that is in the folder, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def need(labels: Path, title: str, *names: str) -> Path:
    """The first of these files that is in the folder; UserError if none is."""
    return find_labels(labels, title, names)[0]


def check_class(name: str, classes: Collection[str], where: str) -> str:
    """`name`, or a UserError that begins with `where` if it is no class."""
    if name not in classes:
        raise UserError(f"{where}: {name!r} is no class{nearest(name, classes)}")
    return name


def one_label(name: str) -> tuple[Label, ...]:
    """The labels of a clip that has the one label `name` throughout, or none."""
    return (Label(name),) if name else ()


def _rank(suffix: str) -> int:
    return next((rank for rank, suffixes in enumerate(_RANKS) if suffix in suffixes), len(_RANKS))


def _stems(video: str, start: float, end: float) -> list[str]:
    times = [(round(1000 * t), f"{t:g}", int(t), f"{int(t):06d}") for t in (start, end)]
    pairs = [f"{video}_{a}_{b}" for a, b in zip(*times, strict=True)]
    return pairs + [f"{video}_{a}" for a in times[0]]
