"""Sound as mono int16 at one rate.

The file's sound is resampled on one grid that begins at its time zero, and a cut is a slice of that, whether or not
what lies before the cut was decoded. Cuts are exact to the sample where time stamps are (Matroska's are 1 ms).
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmr_jax.data.media import require
from mmr_jax.data.media.errors import MediaError, guarded
from mmr_jax.data.media.samples import floats, mono
from mmr_jax.data.media.track import WHOLE, Track, opened

MAX_SAMPLES = 1 << 28  # of all channels after resampling, 1 GiB: 2.3 hours of stereo at 16 kHz
_CONTEXT = 0.1  # seconds on either side of a cut that the resampling filter sees
_LEAD = 2.0  # seconds decoded before a cut: the grid's step (1 at most), the context, and the decoder's own warming up
_GAP = 0.015  # seconds between a frame's time stamp and the samples before it that are jitter, not a gap
_PADDING = 8192  # samples: encoders fill their last frame, and MP4 declares the length without the filling


@dataclasses.dataclass(frozen=True)
class Audio:
    """`pcm` int16 [n], mono, at the rate asked for; `source_rate` in Hz and `channels` are the file's."""

    pcm: np.ndarray
    source_rate: int
    channels: int
    notes: tuple[str, ...]


def read_audio(path: str | Path, rate: int, start: float = 0.0, end: float | None = None) -> Audio:
    """The sound of `path` from `start` to `end` seconds (None: the track's end) at `rate` Hz.

    Channels are averaged, or the loudest is used where they cancel. Sample 0 is the sound at `start` on the clock
    that frames share. A track that begins later or has gaps is silent there, with a note if that is over a tenth.
    Raises MediaError for everything that is wrong with the file: "no samples" if the span holds such silence alone,
    "truncated" if less than 90 % of it is there.
    """
    with guarded(), opened(Path(path), "audio") as track:
        track.span(start, end)
        line = _Line(track, rate, start, end)
        sound = line.resampled()
        line.check_end()
        last = len(sound) if line.stop is None else round(line.stop * rate) - line.shift
        sound = sound[max(0, round(start * rate) - line.shift) : last]
        if not len(sound):
            raise MediaError("outside the file", f"from {start:.3f} s; the samples end before")
        line.check_filled()
        pcm = np.clip(np.rint(mono(sound, track.notes) * 32768), -32768, 32767).astype(np.int16)
        return Audio(pcm, line.source_rate, sound.shape[1], tuple(dict.fromkeys(track.notes)))


class _Line:
    """A track's samples around a cut without gaps or overlaps, in their place in time."""

    def __init__(self, track: Track, rate: int, start: float, end: float | None):
        self._track, self._rate, self._start, self._end = track, rate, start, end
        self._frames = track.frames(start - _LEAD)
        self._next = next(self._frames, None)
        if self._next is None:
            raise track.nothing()
        frame = self._next[1]
        self.source_rate, self._channels = frame.sample_rate, len(frame.layout.channels)
        step = self.source_rate // math.gcd(self.source_rate, rate)  # source samples between common grid points
        self._first = max(0, int((start - _CONTEXT) * self.source_rate) // step * step)
        self.shift = self._first * rate // self.source_rate  # the first sample's place in the resampled file
        self._position = self._first
        self._due = None  # where the next frame's samples are by those before
        self._cut = (round(start * self.source_rate), math.inf if end is None else round(end * self.source_rate))
        self._decoded = self._silent = 0
        self._real = self._filled = 0  # samples of the cut that were decoded, and that were filled in
        self.stop = end

    def resampled(self) -> np.ndarray:
        """float32 [n, channels] from the grid point before the cut to where decoding ended."""
        resample = self._resampler()
        parts, held, pending, total = [], [], 0, 0
        for block in self._blocks():
            held.append(block)
            pending += len(block)
            if pending >= self.source_rate:
                parts.append(resample(np.concatenate(held), False))
                total, held, pending = total + parts[-1].size, [], 0
                if total > MAX_SAMPLES:
                    raise MediaError("too large", f"more than {MAX_SAMPLES} samples; give a start and an end")
        held.append(np.zeros((0, self._channels), np.float32))
        parts.append(resample(np.concatenate(held), True))
        return np.concatenate(parts)

    def check_end(self) -> None:
        """Raises MediaError if less than 90 % of the span was there; sets `stop` to leave out an encoder's filling."""
        declared, reached = self._track.end, self._position / self.source_rate
        ends = [e for e in (self._end, declared) if e is not None]
        if not ends:
            return
        span = min(ends) - self._start
        if reached - self._start < WHOLE * span:
            reason = "truncated" if declared else "outside the file"
            lost = f"{self._track.errors} packets lost"
            raise MediaError(reason, f"samples end at {reached:.3f} s of {min(ends):.3f} s ({lost})")
        if self._track.errors and self._silent > (1 - WHOLE) * span * self.source_rate:
            raise MediaError("undecodable", f"{self._track.errors} packets lost: {self._track.failure}")
        if declared and self._track.exact and self._position - declared * self.source_rate < _PADDING:
            self.stop = min(ends)

    def check_filled(self) -> None:
        """Raises MediaError if silence was filled in for all of the cut; notes it if for more than a tenth."""
        if not self._real:
            detail = f"none from {self._start:.3f} s on: the track begins later or has a gap there"
            raise MediaError("no samples", detail)
        if self._filled > (1 - WHOLE) * (self._filled + self._real):
            self._track.notes.append("over a tenth is silence that was filled in")

    def _resampler(self) -> Any:
        if self.source_rate == self._rate:
            return lambda block, last: block
        soxr = require("soxr", "media")
        stream = soxr.ResampleStream(self.source_rate, self._rate, self._channels, dtype="float32", quality="HQ")

        def resample(block: np.ndarray, last: bool) -> np.ndarray:
            return stream.resample_chunk(np.ascontiguousarray(block), last=last).reshape(-1, self._channels)

        return resample

    def _blocks(self) -> Iterator[np.ndarray]:
        last = math.inf if self._end is None else math.ceil((self._end + _CONTEXT) * self.source_rate)
        while self._next is not None and self._position < last:
            time, frame = self._next
            for block in self._placed(round(time * self.source_rate), self._samples(frame)):
                block = block[: min(len(block), last - self._position)]
                self._position += len(block)
                yield block
            self._next = next(self._frames, None)

    def _placed(self, begin: int, samples: np.ndarray) -> Iterator[np.ndarray]:
        """What of `samples`, which begin at the source sample `begin`, comes next, after silence if there is a gap."""
        if self._due is not None and abs(begin - self._due) < _GAP * self.source_rate:
            begin = self._due
        self._due = begin + len(samples)
        position = self._position
        gap = begin - position
        if gap > 0:
            if self._decoded:
                self._track.notes.append("gaps are silent")
            self._silent += gap
            self._filled += self._inside(position, gap)
            yield from self._silence(gap)
        samples = samples[max(0, -gap) :]
        self._decoded += len(samples)
        self._real += self._inside(max(begin, position), len(samples))
        if len(samples):
            yield samples

    def _inside(self, begin: int, length: int) -> int:
        """How many of these source samples lie in the cut."""
        return max(0, min(begin + length, self._cut[1]) - max(begin, self._cut[0]))

    def _silence(self, length: int) -> Iterator[np.ndarray]:
        for done in range(0, length, self.source_rate):
            yield np.zeros((min(self.source_rate, length - done), self._channels), np.float32)

    def _samples(self, frame: Any) -> np.ndarray:
        if (frame.sample_rate, len(frame.layout.channels)) != (self.source_rate, self._channels):
            raise MediaError("undecodable", "the sample rate or the number of channels changes on the way")
        return floats(frame, self._track.notes)
