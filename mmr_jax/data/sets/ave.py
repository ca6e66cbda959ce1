"""AVE: 10 s of YouTube videos, each with an event that is heard and seen from one second to another; 28 classes.

An annotation is a clip. Some videos have two annotations, and some of these stand in two of the published splits.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mmr_jax.data.prepare import tables
from mmr_jax.data.prepare.listing import Clip, Collector, Label, Listing, label_set
from mmr_jax.data.sets.files import Media, find_labels, find_media
from mmr_jax.errors import UserError

TITLE = "AVE"
LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
COLUMNS = ("category", "video_id", "start_s", "end_s", "split")


def listing(labels: Path, media: Path) -> Listing:
    """Splits by annotations_split.csv, else by the lists of each; Annotations.txt alone makes one split, "unsplit".

    Labels are timed: the seconds outside of one are background. One without duration is left out, its clip is kept.
    Metric top-1.
    """
    files = find_labels(labels, TITLE, ["annotations_split.csv"], *([n] for n in LISTS.values()), ["Annotations.txt"])
    table, *lists, everything = files
    if table:
        rows = _of_csv(table)
    elif any(lists):
        rows = (row for split, path in zip(LISTS, lists, strict=True) if path for row in _of_text(path, split))
    else:
        rows = _of_text(everything, "unsplit")
    collected = _collect(rows, find_media(media))
    return Listing(
        name="ave",
        title=TITLE,
        clips=collected.clips,
        modalities=("audio", "frames"),
        label_sets={"labels": label_set(collected.clips, "labels", multilabel=False)},
        notes=_notes(collected.clips),
        problems=collected.problems,
    )


def _collect(rows: Iterator[tuple[Path, tables.Row]], found: Media) -> Collector:
    collected, times = Collector(), Counter()
    for path, row in rows:
        where = f"{path} line {row.line}"
        category, video, start, end, split = row.cells
        start, end = tables.seconds(start, f"{where}: start"), tables.seconds(end, f"{where}: end")
        if end < start:
            raise UserError(f"{where}: end {end:g} is before start {start:g}")
        times[video] += 1
        name = video if times[video] == 1 else f"{video}_{times[video]}"
        file = found.get(video, [f"{video}.mp4"])[0]
        labels = (Label(category, start, end),) if end > start else ()
        clip = Clip(name, split, file, source=video, labels={"labels": labels})
        collected.add(clip, path.name, row.line, row.intact)
    return collected


def _of_csv(path: Path) -> Iterator[tuple[Path, tables.Row]]:
    for row in tables.table(path, COLUMNS):
        yield path, row._replace(cells=[row.cells[column] for column in COLUMNS])


def _of_text(path: Path, split: str) -> Iterator[tuple[Path, tables.Row]]:
    """Lines of category&video&quality&start&end, maybe below a header."""
    for row in tables.csv_rows(path, "&"):
        if row.cells[0] == "Category":
            continue
        if len(row.cells) != 5:
            raise UserError(f"{path} line {row.line} has {len(row.cells)} parts; expected category&video&quality&0&10")
        category, video, _, start, end = row.cells
        yield path, row._replace(cells=[category, video, start, end, split])


def _notes(clips: list[Clip]) -> tuple[str, ...]:
    splits: dict[str, set[str]] = {}
    for clip in clips:
        splits.setdefault(clip.source, set()).add(clip.split)
    shared = sum(len(s) > 1 for s in splits.values())
    empty = sum(not clip.labels["labels"] for clip in clips)
    return (
        "labels: Tian et al. 2018, no licence stated; the videos belong to their uploaders",
        f"{len(clips)} annotations of {len(splits)} videos; {shared} videos stand in two splits, as published",
        f"annotations without duration, background throughout, no label: {empty}",
    )
