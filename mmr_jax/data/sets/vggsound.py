"""VGGSound: 10 s of YouTube videos, 309 sounds whose origin is in sight; with VGGSounder's labels of the test clips.

VGGSound gives each clip one label. VGGSounder gives test clips all the labels that apply and says of each whether it is
heard (A), seen (V) or both (AV).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmr_jax.data.prepare import tables
from mmr_jax.data.prepare.listing import Clip, Collector, Label, Listing, label_set
from mmr_jax.data.sets.files import Media, check_class, find_labels, find_media, one_label, video_cut
from mmr_jax.errors import UserError

TITLE = "VGGSound"
SECONDS = 10.0
SOUNDER = {"sounder": ("A", "V", "AV"), "audible": ("A", "AV"), "visible": ("V", "AV")}


class _Line(NamedTuple):
    video: str
    start: float
    label: str
    split: str
    row: tables.Row


def listing(labels: Path, media: Path) -> Listing:
    """From vggsound.csv (both splits), else train.csv and test.csv. Metric top-1; VGGSounder's label sets have mAP."""
    whole, train, test = find_labels(labels, TITLE, ["vggsound.csv"], ["train.csv"], ["test.csv"])
    files = {whole: ""} if whole else {path: split for path, split in ((train, "train"), (test, "test")) if path}
    classes = _classes(labels / "stat.csv")
    sounder = _sounder(labels / "vggsounder.csv", classes)
    found, collected = find_media(media), Collector()
    for path, split in files.items():
        for line in _four_columns(path) if path == whole else _two_columns(path, split):
            if classes:
                check_class(line.label, classes, f"{path} line {line.row.line}")
            collected.add(_clip(line, found, sounder), path.name, line.row.line, line.row.intact)
    sets = {"labels": label_set(collected.clips, "labels", classes, multilabel=False)}
    every = sets["labels"].classes
    sets |= {name: label_set(collected.clips, name, every, multilabel=True) for name in SOUNDER if sounder}
    return Listing(
        name="vggsound",
        title=TITLE,
        clips=collected.clips,
        modalities=("audio", "frames"),
        label_sets=sets,
        notes=_notes(collected.clips, classes, sounder),
        problems=collected.problems,
    )


def _clip(line: _Line, found: Media, sounder: dict[str, dict]) -> Clip:
    name = f"{line.video}_{int(line.start):06d}"
    file, start, end = video_cut(found, line.video, line.start, line.start + SECONDS, f"{name}.mp4")
    labels = {"labels": one_label(line.label)}
    if sounder:
        labels |= sounder.get(name, {}) if line.split == "test" else {}
        labels = {key: labels.get(key, ()) for key in ("labels", *SOUNDER)}
    return Clip(name, line.split, file, start, end, line.video, {}, labels)


def _four_columns(path: Path) -> Iterator[_Line]:
    """The publisher's list: video, start in seconds, label, split."""
    for row in tables.csv_rows(path):
        where = f"{path} line {row.line}"
        if len(row.cells) != 4 or row.cells[3] not in ("train", "test"):
            raise UserError(f"{where}: {', '.join(row.cells)!r}; expected video, start, label and train or test")
        yield _Line(row.cells[0], tables.seconds(row.cells[1], f"{where}: start"), *row.cells[2:], row)


def _two_columns(path: Path, split: str) -> Iterator[_Line]:
    """The publisher's list of one split: {video}_{start, six digits}.mp4, label."""
    for row in tables.csv_rows(path):
        video, _, start = row.cells[0].rpartition(".")[0].rpartition("_")
        if len(row.cells) != 2 or not video or not start.isdecimal():
            raise UserError(f"{path} line {row.line}: {row.cells[0]!r}; expected {{video}}_{{start}}.mp4 and a label")
        yield _Line(video, float(start), row.cells[1], split, row)


def _classes(path: Path) -> list[str] | None:
    return sorted(row.cells[0] for row in tables.csv_rows(path)) if path.is_file() else None


def _sounder(path: Path, classes: list[str] | None) -> dict[str, dict[str, tuple[Label, ...]]]:
    """VGGSounder's labels by clip and label set; empty without the file."""
    result: dict[str, dict] = {}
    if not path.is_file():
        return result
    for row in tables.table(path, ["video_id", "label", "modality"]):
        where = f"{path} line {row.line}"
        label, modality = row.cells["label"], row.cells["modality"]
        if modality not in SOUNDER["sounder"]:
            raise UserError(f"{where}: modality is {modality!r}; expected A, V or AV")
        if classes:
            check_class(label, classes, where)
        sets = result.setdefault(row.cells["video_id"], {name: () for name in SOUNDER})
        for name, modalities in SOUNDER.items():
            if modality in modalities and Label(label) not in sets[name]:
                sets[name] += one_label(label)
    return result


def _notes(clips: list[Clip], classes: list[str] | None, sounder: dict) -> tuple[str, ...]:
    notes = [
        "labels: University of Oxford, CC BY 4.0; the videos belong to their uploaders",
        f"classes by {'stat.csv' if classes else 'the labels that occur'}",
    ]
    if sounder:
        tests = [clip for clip in clips if clip.split == "test"]
        labelled = sum(bool(clip.labels["sounder"]) for clip in tests)
        notes.append(f"VGGSounder has labels for {labelled} of {len(tests)} test clips; the others have none there")
    return tuple(notes)
