"""AudioSet: 10 s of YouTube videos, 527 sound classes, several to a clip.

The segment lists come as published (lines that begin with #, ", " between cells) or as copies with a header. Titles of
the videos, which the publisher does not give, are read as text from titles.csv (id,title) if it is there.
"""

from pathlib import Path

from mmr_jax.data.prepare import tables
from mmr_jax.data.prepare.listing import Clip, Collector, Label, Listing, label_set
from mmr_jax.data.sets.files import Media, find_labels, find_media, need, video_cut
from mmr_jax.errors import UserError, nearest

TITLE = "AudioSet"
SEGMENTS = {
    "balanced": "balanced_train_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}


def listing(labels: Path, media: Path) -> Listing:
    """The splits whose segment lists are there; metric mean average precision."""
    files = find_labels(labels, TITLE, *([name] for name in SEGMENTS.values()))
    classes = _classes(need(labels, TITLE, "class_labels_indices.csv"))
    titles = _titles(labels / "titles.csv")
    found, collected = find_media(media), Collector()
    for split, path in zip(SEGMENTS, files, strict=True):
        if path:
            _read_segments(path, split, classes, titles, found, collected)
    texts = ("text",) if titles else ()
    return Listing(
        name="audioset",
        title=TITLE,
        clips=collected.clips,
        modalities=("audio", "frames", *texts),
        label_sets={"labels": label_set(collected.clips, "labels", list(classes.values()), multilabel=True)},
        texts=texts,
        notes=("labels: Google, CC BY 4.0; the videos belong to their uploaders",),
        problems=collected.problems,
    )


def _read_segments(
    path: Path, split: str, classes: dict[str, str], titles: dict, found: Media, collected: Collector
) -> None:
    combinations: dict[str, dict] = {}  # shared by clips: the largest list has two million rows
    for row in tables.csv_rows(path):
        if row.cells[0].startswith("#") or row.cells[0] == "YTID":
            continue
        where = f"{path} line {row.line}"
        if len(row.cells) != 4:
            raise UserError(f"{where} has {len(row.cells)} cells; expected id, start, end and the quoted labels")
        video, *times, names = row.cells
        if names not in combinations:
            combinations[names] = {"labels": _labels(names, classes, where)}
        start, end = tables.span(*times, where)
        texts, intact = titles.get(video, ((), True))
        file, cut_start, cut_end = video_cut(found, video, start, end, f"{video}.mp4")
        clip = Clip(
            id=f"{video}_{round(1000 * start):06d}",
            split=split,
            media=file,
            start=cut_start,
            end=cut_end,
            source=video,
            texts={"text": texts} if titles else {},
            labels=combinations[names],
        )
        collected.add(clip, path.name, row.line, row.intact and intact)


def _labels(cell: str, classes: dict[str, str], where: str) -> tuple[Label, ...]:
    mids = [mid.strip() for mid in cell.split(",") if mid.strip()]
    for mid in mids:
        if mid not in classes:
            raise UserError(f"{where}: label {mid!r} is not in class_labels_indices.csv{nearest(mid, classes)}")
    return tuple(Label(classes[mid]) for mid in dict.fromkeys(mids))


def _classes(path: Path) -> dict[str, str]:
    """Names of the classes by their id, in the order of their index."""
    rows = [row.cells for row in tables.table(path, ["index", "mid", "display_name"])]
    try:
        rows.sort(key=lambda row: int(row["index"]))
    except ValueError as error:
        raise UserError(f"{path}: the column 'index' must hold whole numbers ({error})") from None
    return {row["mid"]: row["display_name"] for row in rows}


def _titles(path: Path) -> dict[str, tuple[tuple[str, ...], bool]]:
    """(texts, whether they were UTF-8) by video; empty without the file."""
    if not path.is_file():
        return {}
    rows = tables.table(path, ["id", "title"])
    return {row.cells["id"]: ((row.cells["title"],) if row.cells["title"] else (), row.intact) for row in rows}
