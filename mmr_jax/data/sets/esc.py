"""ESC-50: 5 s of environmental sound, 50 classes in five folds. Clips cut from one recording share a fold."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmr_jax.data.prepare import tables
from mmr_jax.data.prepare.listing import Clip, Collector, Listing, label_set
from mmr_jax.data.sets.files import Media, find_labels, find_media, one_label
from mmr_jax.errors import UserError

TITLE = "ESC-50"
FOLDS = ("1", "2", "3", "4", "5")
TEST_FOLD = "5"
ESC50 = ("filename", "fold", "target", "category")
INDEX = ("file", "category", "esc50_target", "segment", "esc50_name", "esc50_fold")


class _Sound(NamedTuple):
    name: str
    media: str
    category: str
    target: str
    fold: str
    source: str
    known: bool
    row: tables.Row


def listing(labels: Path, media: Path) -> Listing:
    """From esc50.csv, else from index.csv of a subset; fold 5 is "test". Classes in the order of their targets."""
    published, index = find_labels(labels, TITLE, ["esc50.csv"], ["index.csv"])
    path = published or index
    collected, targets, guessed = Collector(), {}, 0
    for sound in _of_esc50(path, find_media(media)) if published else _of_index(path):
        where = f"{path} line {sound.row.line}"
        if not sound.target.isdecimal() or sound.fold not in FOLDS:
            raise UserError(f"{where}: target {sound.target!r}, fold {sound.fold!r}; expected numbers, a fold of 1-5")
        targets[sound.category] = int(sound.target)
        guessed += not sound.known
        split = "test" if sound.fold == TEST_FOLD else "train"
        clip = Clip(sound.name, split, sound.media, source=sound.source, labels={"labels": one_label(sound.category)})
        collected.add(clip, path.name, sound.row.line, sound.row.intact)
    return Listing(
        name="esc",
        title=TITLE,
        clips=collected.clips,
        modalities=("audio",),
        label_sets={"labels": label_set(collected.clips, "labels", sorted(targets, key=targets.get), multilabel=False)},
        notes=_notes(guessed),
        problems=collected.problems,
    )


def _of_esc50(path: Path, found: Media) -> Iterator[_Sound]:
    for row in tables.table(path, ESC50):
        file, fold, target, category = (row.cells[column] for column in ESC50)
        stem = Path(file).stem
        media = found.get(stem, [f"audio/{file}"])[0]
        yield _Sound(stem, media, category, target, fold, _recording(stem), True, row)


def _of_index(path: Path) -> Iterator[_Sound]:
    """A clip whose name in ESC-50 is unknown takes the fold of its number in its class, and itself as its recording."""
    for row in tables.table(path, INDEX):
        file, category, target, segment, name, fold = (row.cells[column] for column in INDEX)
        known = bool(name and fold)
        if not known and not segment.isdecimal():
            raise UserError(f"{path} line {row.line}: segment is {segment!r}; expected a whole number")
        fold = fold if known else FOLDS[int(segment) % len(FOLDS)]
        yield _Sound(Path(file).stem, file, category, target, fold, _recording(name) if known else file, known, row)


def _recording(name: str) -> str:
    """The recording of {fold}-{recording}-{take}-{target}."""
    return name.split("-")[1] if name.count("-") >= 2 else name


def _notes(guessed: int) -> tuple[str, ...]:
    notes = ("K. J. Piczak 2015, CC BY-NC 3.0; its ESC-10 part CC BY",)
    if not guessed:
        return notes
    caution = "clips of one recording may stand in both splits, so that scores mean little"
    return (*notes, f"{guessed} clips have no known fold and are dealt out by number: {caution}")
