"""What is found in records, in a form that adds up: parts of a split are read by several processes."""

import collections
import dataclasses
from typing import NamedTuple

import numpy as np

FIRST = 10  # cases that are named; the others are only counted

DAMAGED, DISAGREE = "damaged records", "index and record disagree"
UNDECODABLE, FRAME_COUNT = "undecodable frames", "other number of frames"
SILENT, CLIPPED, FROZEN, BLACK = "silent audio", "clipped audio", "frozen frames", "black frames"
EMPTY_TEXT, SAME_ID = "empty text", "duplicate ids"
SAME_CONTENT, SAME_ACROSS = "duplicate content", "duplicate content across splits"
OVERLAP, UNUSED = "source in several splits", "labels never used"

SUSPICIOUS = {
    DAMAGED: "the bytes cannot be read",
    DISAGREE: "id, source, presence, duration or labels differ",
    UNDECODABLE: "a JPEG does not decode",
    FRAME_COUNT: "neither that of the settings nor a single picture",
    SILENT: "all samples equal, or rms below -70 dBFS",
    CLIPPED: "more than 1 % of the samples at full scale",
    FROZEN: "all frames within 1 grey level of the first on average",
    BLACK: "a frame whose mean is below 5 of 255",
    EMPTY_TEXT: "a text without a visible character",
    SAME_ID: "clips whose id an earlier clip has",
    SAME_CONTENT: "clips with audio and frames of an earlier clip of the split",
    SAME_ACROSS: "clips with audio and frames of a clip of another split",
    OVERLAP: "sources of which clips stand in more than one split",
    UNUSED: "classes without an example in any split",
}


class Case(NamedTuple):
    """One suspicious thing: the split ("" where it is none's), the record's row in it (-1: none), its id or name."""

    split: str
    row: int
    name: str
    detail: str = ""


@dataclasses.dataclass
class Found:
    """How many cases, and the first ones."""

    count: int = 0
    first: list[Case] = dataclasses.field(default_factory=list)

    def add(self, case: Case) -> None:
        self.merge(Found(1, [case]))

    def merge(self, other: "Found") -> None:
        """Appends the cases of `other`."""
        self.count += other.count
        self.first += other.first[: FIRST - len(self.first)]


@dataclasses.dataclass
class Moments:
    """Mean and deviation of all values seen, from sums in float64."""

    values: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, array: np.ndarray) -> None:
        wide = array.astype(np.float64)
        self.merge(Moments(array.size, float(wide.sum()), float(np.square(wide).sum())))

    def merge(self, other: "Moments") -> None:
        self.values += other.values
        self.total += other.total
        self.squares += other.squares

    def mean_std(self) -> tuple[float, float]:
        """Of at least one value."""
        mean = self.total / self.values
        return mean, max(self.squares / self.values - mean**2, 0.0) ** 0.5


@dataclasses.dataclass
class Facts:
    """Of the records of one split that were read.

    `texts` {set: {(words, bytes): texts}}; `with_text` {set: clips}; `pixels` int64 [3, 256] how often a channel has a
    value; `digests` uint64 [n] of audio and frames, `digest_rows` int64 [n] of the clips that have either.
    """

    read: int = 0
    found: dict[str, Found] = dataclasses.field(default_factory=lambda: collections.defaultdict(Found))
    mel: Moments = dataclasses.field(default_factory=Moments)
    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((3, 256), np.int64))
    texts: dict[str, collections.Counter] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    with_text: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    digests: list[np.ndarray] = dataclasses.field(default_factory=list)
    digest_rows: list[np.ndarray] = dataclasses.field(default_factory=list)

    def merge(self, other: "Facts") -> None:
        """Appends the facts of later records."""
        self.read += other.read
        for kind, found in other.found.items():
            self.found[kind].merge(found)
        self.mel.merge(other.mel)
        self.pixels += other.pixels
        for name, lengths in other.texts.items():
            self.texts[name].update(lengths)
        self.with_text.update(other.with_text)
        self.digests += other.digests
        self.digest_rows += other.digest_rows
