"""One track of a container: its clock, its declared end, and its frames from any time on.

All times are seconds from the file's time zero: the earliest start of any of its tracks (transport streams begin
anywhere), or 0 where that is negative (encoder delay, which is no content). Sound and frames share this clock.
"""

import contextlib
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from mmr_jax.data.media import require
from mmr_jax.data.media.container import listing, open_container, riff_shortfall, tagged_end
from mmr_jax.data.media.errors import MediaError, describe
from mmr_jax.data.media.image import check_size

WHOLE = 0.9  # the part of the span asked for that must be there
_NEAR = 2.0  # seconds that are decoded from the beginning rather than looked up
_BACK = (0.0, 2.0, 15.0)  # seconds before the wanted time that seeking tries, before it gives up on the file's index
_UNITS = {"audio": "sample", "video": "frame"}
_GUESSED = {"mp3", "aac", "ac3", "eac3", "amr"}  # their duration is the file's size over the first bit rate


class Track:
    """The first track of `kind` ("audio" or "video"); `notes` and `errors` (packets lost) grow while it is read."""

    def __init__(self, path: Path, kind: str):
        self._path, self._kind = path, kind
        self._av = require("av", "media")
        self.notes: list[str] = []
        self.errors = 0
        self.failure = "no packet of the track decodes"
        self._open()
        self.zero = Fraction(max(0, self._container.start_time or 0), 1_000_000)
        self.end = self._declared_end()  # None: unknown
        self.exact = "mp4" in self._container.format.name  # whether the end is meant to the sample

    def close(self) -> None:
        self._container.close()

    def span(self, start: float, end: float | None) -> tuple[float, float | None]:
        """(start, end) in seconds, checked against what the file declares; the end stays None if nobody knows it."""
        if not (math.isfinite(start) and start >= 0 and (end is None or start < end < math.inf)):
            raise MediaError("outside the file", f"from {start} s to {end} s is no span of time")
        if self.end is None:
            return start, end
        if start >= self.end or (end is not None and self.end - start < WHOLE * (end - start)):
            until = "" if end is None else f" to {end:.3f} s"
            raise MediaError("outside the file", f"from {start:.3f} s{until}; the track ends at {self.end:.3f} s")
        if end is not None and end > self.end + 0.1:
            self.notes.append("the cut ends after the track")
        return start, self.end if end is None else end

    def frames(self, since: float) -> Iterator[tuple[float, Any]]:
        """(time, frame) in order, from a frame at or before `since` on, or from the first one of the track."""
        for back in _BACK:
            if since - back <= _NEAR or not self._seek(since - back):
                break
            frames = self._decode()
            first = next(frames, None)
            if first is not None and first[0] <= since:
                yield first
                yield from frames
                return
        self._restart()
        yield from self._decode()

    def scan_end(self) -> float | None:
        """The end by the time stamps of all packets, none of them decoded; None if there is no packet."""
        self._restart()
        ends = ((p.pts + (p.duration or 0)) * p.time_base for p in self._packets() if p.pts is not None)
        end = max(ends, default=None)
        return None if end is None else max(float(end - self.zero), 0.001)

    def nothing(self) -> MediaError:
        """What is wrong with a track of which not one sample or frame came."""
        unit = _UNITS[self._kind]
        if self.errors:
            return MediaError("undecodable", self.failure)
        if self.end:
            return MediaError("truncated", f"no {unit} is left of {self.end:.3f} s")
        return MediaError(f"no {unit}s", f"the {self._kind} track is empty")

    def _open(self) -> None:
        self._container = open_container(self._path)
        try:
            self.stream = self._first()
            self.stream.codec_context.thread_count = 1  # clips are read by several processes
            for other in self._container.streams:
                if other.index != self.stream.index:
                    other.discard = self._av.stream.Discard.all
        except BaseException:
            self._container.close()
            raise
        self._fresh = True

    def _first(self) -> Any:
        pictures = self._av.stream.Disposition.attached_pic  # cover art of a song
        tracks = [s for s in self._container.streams if s.type == self._kind and not s.disposition & pictures]
        if not tracks:
            raise MediaError(f"no {self._kind} track", f"the file has {listing(self._container.streams)}")
        if len(tracks) > 1:
            self.notes.append(f"several {self._kind} tracks, the first is used")
        context = tracks[0].codec_context
        if context is None:
            raise MediaError("undecodable", f"there is no decoder for the {self._kind} track")
        if self._kind == "video":
            check_size(context.width, context.height)
        return tracks[0]

    def _declared_end(self) -> float | None:
        name, stream = self._container.format.name, self.stream
        if name in _GUESSED:
            return None
        end = tagged_end(stream.metadata) if "matroska" in name else None
        if end is not None:
            end -= self.zero
        elif stream.duration:
            end = ((stream.start_time or 0) + stream.duration) * stream.time_base - self.zero
            end *= riff_shortfall(self._path) if name == "wav" else 1
        elif self._container.duration:
            begin = max(0, self._container.start_time or 0)
            end = Fraction(begin + self._container.duration, 1_000_000) - self.zero
        return float(end) if end else None

    def _seek(self, time: float) -> bool:
        try:
            at = int((Fraction(time) + self.zero) / self.stream.time_base)
            self._container.seek(at, stream=self.stream)
        except self._av.error.FFmpegError:
            return False
        self._fresh = False
        return True

    def _restart(self) -> None:
        if not self._fresh:
            self._container.close()
            self._open()

    def _packets(self) -> Iterator[Any]:
        self._fresh = False
        try:
            yield from self._container.demux(self.stream)
        except self._av.error.FFmpegError as error:  # the container is damaged here: what came before still counts
            self.errors, self.failure = self.errors + 1, describe(error)

    def _decode(self) -> Iterator[tuple[float, Any]]:
        for packet in self._packets():
            try:
                frames = packet.decode()
            except self._av.error.EOFError:
                return
            except self._av.error.FFmpegError as error:
                self.errors, self.failure = self.errors + 1, describe(error)
                continue
            for frame in frames:
                stamp = frame.dts if frame.pts is None else frame.pts
                if stamp is None:
                    raise MediaError("undecodable", f"the {self._kind} track has no time stamps")
                if frame.is_corrupt:
                    self.errors, self.failure = self.errors + 1, "frames are damaged"
                else:
                    yield float(stamp * frame.time_base - self.zero), frame


@contextlib.contextmanager
def opened(path: Path, kind: str) -> Iterator[Track]:
    """A `Track` that is closed in the end; MediaError if the file or such a track is not there."""
    track = Track(path, kind)
    try:
        yield track
    finally:
        track.close()
