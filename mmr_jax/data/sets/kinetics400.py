"""Kinetics-400: 10 s of YouTube videos, each of one of 400 human actions."""

from pathlib import Path

from mmr_jax.data.prepare import tables
from mmr_jax.data.prepare.listing import Clip, Collector, Listing, label_set
from mmr_jax.data.sets.files import Media, check_class, find_labels, find_media, first, one_label, video_cut

TITLE = "Kinetics-400"
SPLITS = {
    "train": ("kinetics-400_train.csv", "train.csv"),
    "val": ("kinetics-400_val.csv", "val.csv", "validate.csv"),
    "test": ("kinetics-400_test.csv", "test.csv"),
}
LABEL_MAPS = ("label_map_k400.txt", "label_map.txt")
COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def listing(labels: Path, media: Path) -> Listing:
    """The splits whose csv files are there; metric top-1. A row without a label has none."""
    files = find_labels(labels, TITLE, *SPLITS.values())
    names = first(labels, LABEL_MAPS)
    classes = [line.strip() for line in tables.read_text(names).splitlines() if line.strip()] if names else None
    found, collected = find_media(media), Collector()
    for split, path in zip(SPLITS, files, strict=True):
        if path:
            _read_split(path, split, set(classes) if names else None, found, collected)
    return Listing(
        name="kinetics400",
        title=TITLE,
        clips=collected.clips,
        modalities=("audio", "frames"),
        label_sets={"labels": label_set(collected.clips, "labels", classes, multilabel=False)},
        notes=(
            "labels: Google, CC BY 4.0; the videos belong to their uploaders",
            f"classes by {names.name if names else 'the labels that occur'}",
        ),
        problems=collected.problems,
    )


def _read_split(path: Path, split: str, classes: set[str] | None, found: Media, collected: Collector) -> None:
    for row in tables.table(path, COLUMNS):
        where = f"{path} line {row.line}"
        label, video, *times = (row.cells[column] for column in COLUMNS)
        start, end = tables.span(*times, where)
        if classes and label:
            check_class(label, classes, where)
        name = f"{video}_{int(start):06d}_{int(end):06d}"
        file, cut_start, cut_end = video_cut(found, video, start, end, f"{name}.mp4")
        clip = Clip(name, split, file, cut_start, cut_end, video, {}, {"labels": one_label(label)})
        collected.add(clip, path.name, row.line, row.intact)
