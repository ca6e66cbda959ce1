"""One clip from its media file to its record: what every process and every Beam worker runs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmr_jax.data.media.audio import Audio, read_audio
from mmr_jax.data.media.errors import MediaError
from mmr_jax.data.media.image import read_image
from mmr_jax.data.media.video import Frames, read_frames
from mmr_jax.data.prepare.listing import Clip, Problem
from mmr_jax.data.prepare.records import Encoder, Schema, presence
from mmr_jax.data.prepare.settings import Settings
from mmr_jax.errors import UserError

_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")  # their first bytes


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A clip's record, or None if nothing of it is left; `row` is its line of the index.

    `row` has "id", "source", "present" (by MODALITIES), "duration" in seconds, "labels" {set: class numbers}.
    """

    record: bytes | None
    row: dict[str, Any] | None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


class Preparer:
    """Prepares clips of one data set, each for itself."""

    def __init__(self, media: Path, settings: Settings, schema: Schema):
        self._media = media
        self._settings = settings
        self._schema = schema
        self._encoder = Encoder(schema.features)
        self._numbers = {s: {name: i for i, name in enumerate(names)} for s, names in schema.classes.items()}

    def prepare(self, clip: Clip) -> Outcome:
        """Media that cannot be read are problems of the outcome, whatever is wrong with them.

        A modality that cannot be read is absent. A clip with media to read of which nothing can be read is dropped,
        also if it has text: were it kept, a wrong folder of media would make a data set of text alone.
        """
        problems: list[Problem] = []
        audio = self._read("audio", clip, self._audio, problems)
        frames = self._read("frames", clip, self._frames, problems)
        texts = {name: [t for t in clip.texts.get(name, ()) if t.strip()] for name in self._schema.texts}
        if self._schema.texts and not any(texts.values()):
            problems.append((clip.id, "text", "no text", ""))
        if audio is None and frames is None and (self._wants_media or not any(texts.values())):
            return Outcome(None, None, (_whole(clip, problems),))
        notes = tuple(note for part in (audio, frames) if part is not None for note in part.notes)
        example = self._example(clip, audio, frames, texts)
        return Outcome(self._encoder.encode(example), _row(example), tuple(problems), notes)

    @property
    def _wants_media(self) -> bool:
        return bool({"audio", "frames"} & set(self._schema.modalities))

    def _read(self, modality: str, clip: Clip, read: Callable[[Clip], Any], problems: list[Problem]) -> Any:
        """What `read` gives, or None and a line in `problems`."""
        if modality not in self._schema.modalities:
            return None
        try:
            return read(clip)
        except MediaError as error:
            problems.append((clip.id, modality, error.reason, error.detail))
            return None

    def _audio(self, clip: Clip) -> Audio:
        path = self._media / clip.media
        if is_image(path):
            raise MediaError("no audio track", "an image")
        return read_audio(path, self._settings.rate, clip.start, clip.end)

    def _frames(self, clip: Clip) -> Frames:
        path, settings = self._media / clip.media, self._settings
        if is_image(path):
            return read_image(path, settings.short_side, settings.quality)
        return read_frames(path, settings.frames, settings.short_side, clip.start, clip.end, settings.quality)

    def _example(self, clip: Clip, audio: Audio | None, frames: Frames | None, texts: dict) -> dict[str, Any]:
        duration = _duration(clip, audio, frames, self._settings.rate)
        return {
            "id": clip.id,
            "source": clip.source,
            "frames": list(frames.jpegs) if frames else [],
            "frame_times": np.asarray(frames.times if frames else [], np.float32),
            "audio": audio.pcm if audio else np.zeros(0, np.int16),
            "texts": texts,
            "labels": {name: self._labels(clip, name, duration) for name in self._schema.classes},
            "duration": duration,
        }

    def _labels(self, clip: Clip, name: str, duration: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = clip.labels.get(name, ())
        unknown = [label.name for label in labels if label.name not in self._numbers[name]]
        if unknown:
            raise UserError(f"clip {clip.id} has the label {unknown[0]!r}, which is no class of {name}")
        ends = [duration if label.end < 0 else label.end for label in labels]
        numbers = np.array([self._numbers[name][label.name] for label in labels], np.int64)
        return numbers, np.array([label.start for label in labels], np.float32), np.array(ends, np.float32)


def is_image(path: Path) -> bool:
    """By its first bytes, for names lie. False also if there is no such file."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(_IMAGES) or head[4:] == b"ftypavif" or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def lost(clip: Clip, reason: str, detail: str) -> Outcome:
    """The outcome for a clip of which nothing is left."""
    return Outcome(None, None, ((clip.id, "clip", reason, detail),))


def _whole(clip: Clip, problems: list[Problem]) -> Problem:
    """One line for a clip that is lost whole: the first reason, and everything else as its detail."""
    first = problems[0]
    if len({(reason, detail) for _, m, reason, detail in problems if m != "text"}) == 1 and first[1] != "text":
        return (clip.id, "clip", first[2], first[3])
    detail = "; ".join(f"{m}: {reason}" + (f" ({text})" if text else "") for _, m, reason, text in problems)
    return (clip.id, "clip", first[2], detail)


def _duration(clip: Clip, audio: Audio | None, frames: Frames | None, rate: int) -> float:
    """Seconds: of the audio, else of the cut as the listing has it, else up to the mirror image of the first frame."""
    if audio is not None:
        return len(audio.pcm) / rate
    if clip.end is not None:
        return clip.end - clip.start
    return float(frames.times[0] + frames.times[-1]) if frames else 0.0


def _row(example: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": example["id"],
        "source": example["source"],
        "present": presence(example),
        "duration": example["duration"],
        "labels": {name: values[0].tolist() for name, values in example["labels"].items()},
    }
