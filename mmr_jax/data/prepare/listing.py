"""What a data set holds before its media are read: clips with their texts and labels, classes, splits."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from mmr_jax.errors import UserError

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".3gp", ".ogv")
)
AUDIO_SUFFIXES = frozenset((".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".wma"))
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"))

Problem = tuple[str, str, str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Label:
    """A class name and when it holds, in seconds from the clip's start; `end` below 0: to the clip's end."""

    name: str
    start: float = 0.0
    end: float = -1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """One example. `media` is a path relative to the media folder: a container, an audio file or an image.

    `start` and `end` cut it (seconds; None: to its end). `source` is what must not stand on both sides of a split, such
    as a video's id; by default the media path. `texts` and `labels` have a key for every set of the listing. `id` and
    `source` are made `encodable`.
    """

    id: str
    split: str
    media: str
    start: float = 0.0
    end: float | None = None
    source: str = ""
    texts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, tuple[Label, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "id", encodable(self.id))
        object.__setattr__(self, "source", encodable(self.source or self.media))


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """Class names in order, and how predictions of them are scored: "top1", or "map" where clips have several."""

    classes: tuple[str, ...]
    multilabel: bool
    metric: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """A data set as its label files tell it.

    `modalities` of ("audio", "frames", "text") are what a clip is expected to have; `texts` the names of the text sets;
    `notes` origin, licence and sizes; `problems` rows that could not be used as they are: (id, "clip" or a modality,
    reason, detail). "text not UTF-8" keeps its clip; every other reason drops the row.
    """

    name: str
    title: str
    clips: list[Clip]
    modalities: tuple[str, ...]
    label_sets: dict[str, LabelSet]
    texts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: list[Problem] = dataclasses.field(default_factory=list)


class Collector:
    """Clips by unique id: the second of an id is dropped and noted in `problems`.

    A media path that leads out of the media folder is a UserError. With `one_split`, a clip of the same media and times
    as one in another split is dropped and noted too.
    """

    def __init__(self, one_split: bool = False):
        self.clips: list[Clip] = []
        self.problems: list[Problem] = []
        self._lines: dict[str, int] = {}
        self._places: dict[tuple, tuple[str, int]] | None = {} if one_split else None

    def add(self, clip: Clip, file: str, line: int, intact: bool = True) -> None:
        """Takes the clip of `line` of `file`, or notes why not. `intact` is False where its text was no UTF-8."""
        place = f"{file} line {line}"
        check_media(clip.media, place)
        if clip.id in self._lines:
            self._note(clip, "duplicate id", f"{place}; the first is line {self._lines[clip.id]}")
            return
        if self._places is not None:
            cut = (clip.media, clip.start, clip.end)
            split, first = self._places.setdefault(cut, (clip.split, line))
            if split != clip.split:
                self._note(clip, "in two splits", f"{place}; line {first} has the same media and times in {split}")
                return
        if not intact:
            self._note(clip, "text not UTF-8", f"{place}; read as latin-1")
        self._lines[clip.id] = line
        self.clips.append(clip)

    def _note(self, clip: Clip, reason: str, detail: str) -> None:
        self.problems.append((clip.id, "clip", reason, detail))


def encodable(text: str) -> str:
    """`text` as UTF-8 can hold it: bytes of a file's name that are no UTF-8 become \\xNN."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_media(media: str, where: str) -> None:
    """UserError that begins with `where` unless `media` is a relative path of a file below the media folder."""
    parts = media.replace("\\", "/").split("/")
    absolute = not parts[0] or parts[0][1:] == ":"
    if absolute or ".." in parts or parts[-1] in ("", ".") or "\0" in media:
        raise UserError(f"{where}: media {media!r} must be a path below the media folder, relative and without '..'")


def label_set(
    clips: Iterable[Clip], name: str, classes: Sequence[str] | None = None, multilabel: bool | None = None
) -> LabelSet:
    """The label set `name` over all `clips`: sorted class names unless `classes` gives them; `multilabel` (by default:
    whether any clip has two different names) decides the metric.
    """
    combinations = {clip.labels[name] for clip in clips}
    names = [{label.name for label in labels} for labels in combinations]
    if multilabel is None:
        multilabel = any(len(n) > 1 for n in names)
    if classes is None:
        classes = sorted(set().union(*names))
    return LabelSet(tuple(classes), multilabel, "map" if multilabel else "top1")
