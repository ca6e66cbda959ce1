"""Frames of a video, evenly spread over a span of time."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmr_jax.data.media.display import turns
from mmr_jax.data.media.errors import MediaError, guarded
from mmr_jax.data.media.image import Frames, check_size, scaled, to_jpeg
from mmr_jax.data.media.track import WHOLE, Track, opened

_JUMP = 10.0  # seconds to the next wanted frame from which on the file is sought rather than decoded through


def read_frames(
    path: str | Path, count: int, short_side: int, start: float = 0.0, end: float | None = None, quality: int = 90
) -> Frames:
    """`count` frames of `path`; frame i is the one nearest to start + (i + 0.5) * (end - start) / count seconds.

    `end` None is the track's end. Frames are upright, their shorter side resized to `short_side`, which also makes
    pixels square (0: as stored). `times` are the frames' own. Raises MediaError for everything that is wrong with
    the file: "truncated" if less than 90 % of the span is there, "no frames" if a nearest frame lies outside of it by
    more than a frame lasts on average, which is twice as far as one that is shown in the span can at a steady rate.
    """
    with guarded(), opened(Path(path), "video") as track:
        start, end = _span(track, start, end)
        cursor, writer = _Cursor(track), _Writer(track, short_side, quality)
        times, jpegs = [], []
        for target in start + (np.arange(count) + 0.5) * (end - start) / count:
            time, frame = cursor.nearest(float(target))
            if track.errors and abs(time - target) > (1 - WHOLE) * (end - start):
                raise MediaError("undecodable", f"no frame near {target:.3f} s: {track.failure}")
            jpegs.append(jpegs[-1] if times and times[-1] == time else writer.jpeg(frame))
            times.append(time)
        _check_end(track, cursor, start, end)
        _check_inside(track, times, start, end)
        _note_repeats(track, times)
        seconds = np.subtract(times, start).astype(np.float32)
        return Frames(tuple(jpegs), seconds, writer.height, writer.width, tuple(dict.fromkeys(track.notes)))


def _span(track: Track, start: float, end: float | None) -> tuple[float, float]:
    start, end = track.span(start, end)
    if end is None:
        end = track.scan_end()
        if end is None:
            raise MediaError("no frames", "the video track is empty")
        if end <= start:
            raise MediaError("outside the file", f"from {start:.3f} s; the track ends at {end:.3f} s")
    return start, end


class _Cursor:
    """Goes forward through a track and holds the two frames around where it is."""

    def __init__(self, track: Track):
        self._track = track
        self._frames = None
        self._before = self._after = None
        self._jump = True

    def nearest(self, target: float) -> tuple[float, Any]:
        """(time, frame) nearest to `target`, which must not be less than the one before."""
        self.advance(target)
        held = [f for f in (self._before, self._after) if f]
        return min(held, key=lambda f: abs(f[0] - target))

    def advance(self, target: float) -> None:
        """Reads up to the first frame at or after `target`, or to the last frame."""
        if self._frames is None or (self._jump and self._after[0] < target - _JUMP):
            self._seek(target)
        while self._after[0] < target and (following := next(self._frames, None)):
            self._before, self._after = self._after, following

    def reached(self) -> float:
        """Until when the last frame read is shown: by its own duration, or as long as the one before."""
        time, frame = self._after
        shown = [float((frame.duration or 0) * frame.time_base)]
        if self._before:
            shown.append(time - self._before[0])
        return time + max(shown)

    def _seek(self, target: float) -> None:
        self._frames = self._track.frames(target)
        found = next(self._frames, None)
        if found:
            # Where the index leads back to what was read already, seeking only costs time.
            self._jump = self._after is None or found[0] > self._after[0]
            self._before, self._after = None, found
        elif self._after is None:
            raise self._track.nothing()


class _Writer:
    """Frames as upright JPEGs of the size of the first one."""

    def __init__(self, track: Track, short_side: int, quality: int):
        self._track, self._short_side, self._quality = track, short_side, quality
        self._stored = None
        self.height = self.width = 0

    def jpeg(self, frame: Any) -> bytes:
        check_size(frame.width, frame.height)
        image = self._upright(frame)
        if self._stored is None:
            self._stored = image.size
            self.width, self.height = self._size(frame)
        elif self._stored != image.size:
            self._track.notes.append("the frame size changes, all have the size of the first")
        return to_jpeg(image, (self.width, self.height), self._quality)

    def _upright(self, frame: Any) -> Image.Image:
        image = frame.to_image()
        steps, note = turns(frame)
        if note:
            self._track.notes.append(note)
        for step in steps:
            image = image.transpose(step)
        return image

    def _size(self, frame: Any) -> tuple[int, int]:
        width, height = frame.width, frame.height
        pixel = float(self._track.stream.sample_aspect_ratio or 1)  # width over height of one pixel
        if self._short_side and pixel != 1 and 0.2 < pixel < 5:
            self._track.notes.append("pixels made square")
            width = round(width * pixel)
        if Image.Transpose.TRANSPOSE in turns(frame)[0]:
            width, height = height, width
        return scaled(width, height, self._short_side)


def _check_end(track: Track, cursor: _Cursor, start: float, end: float) -> None:
    last = min(end, track.end or math.inf)
    cursor.advance(start + WHOLE * (last - start))
    reached = cursor.reached()
    if reached < start + WHOLE * (last - start) - 1e-3:
        reason = "truncated" if track.end else "outside the file"
        raise MediaError(reason, f"frames end at {reached:.3f} s of {last:.3f} s ({track.errors} packets lost)")


def _check_inside(track: Track, times: list[float], start: float, end: float) -> None:
    """A track that begins after the span, or has a gap there, gives frames of something else."""
    rate = track.stream.average_rate or track.stream.base_rate
    slack = (1 / float(rate) if rate else 0.0) + 1e-3
    for time in times:
        if not start - slack <= time <= end + slack:
            raise MediaError("no frames", f"the nearest is at {time:.3f} s, outside {start:.3f} to {end:.3f} s")


def _note_repeats(track: Track, times: list[float]) -> None:
    distinct = len(set(times))
    if distinct < len(times):
        track.notes.append("one distinct frame" if distinct == 1 else "fewer frames than asked for, some repeat")
