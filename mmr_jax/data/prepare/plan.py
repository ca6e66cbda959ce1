"""What a run of mmr prepare will do: the order of the clips, and which shard each belongs to.

The order within a split is by a digest of data set and clip, so that any slice of it is a random sample. All of it is
a pure function of listing and settings, whatever was prepared before and by how many processes.
"""

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmr_jax.data.prepare.layout import LAYOUT, shard_name
from mmr_jax.data.prepare.listing import Clip, Listing
from mmr_jax.data.prepare.records import MODALITIES, Schema
from mmr_jax.data.prepare.settings import Settings
from mmr_jax.errors import UserError, nearest

_CLIP = operator.attrgetter("id", "split", "media", "start", "end", "source", "texts")  # and the labels
_LABEL = operator.attrgetter("name", "start", "end")
_AT_ONCE = 256  # clips that are encoded together


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of the `count` shards of a split."""

    name: str  # of the data set
    split: str
    index: int
    count: int

    @property
    def filename(self) -> str:
        """As TFDS names it."""
        return shard_name(self.name, self.split, self.index, self.count)


@dataclasses.dataclass(frozen=True)
class Piece:
    """Neighbouring clips of a shard, prepared by one process at a time; `first` is their place in the shard."""

    shard: Shard
    first: int
    clips: tuple[Clip, ...]

    @property
    def filename(self) -> str:
        return f"{self.shard.filename}.{self.first:06d}+{len(self.clips)}"


@dataclasses.dataclass(frozen=True)
class Job:
    """What every process needs to know."""

    work: Path  # the folder that the work is done in
    media: Path
    settings: Settings
    schema: Schema


@dataclasses.dataclass(frozen=True)
class Plan:
    """The clips of every split in their order, and what the result depends on."""

    listing: Listing
    settings: Settings
    clips_per_shard: int
    splits: dict[str, list[Clip]]

    @property
    def schema(self) -> Schema:
        classes = {name: labels.classes for name, labels in self.listing.label_sets.items()}
        return Schema(classes, self.listing.texts, self.listing.modalities)

    @property
    def clips(self) -> int:
        """Clips of all splits."""
        return sum(map(len, self.splits.values()))

    def shards(self, split: str | None = None) -> list[Shard]:
        """All shards, or those of one split."""
        names = self.splits if split is None else [split]
        counts = {name: -(-len(self.splits[name]) // self.clips_per_shard) for name in names}
        return [Shard(self.listing.name, s, index, count) for s, count in counts.items() for index in range(count)]

    def pieces(self, shard: Shard, size: int) -> list[Piece]:
        """The clips of a shard, `size` at a time."""
        first = shard.index * self.clips_per_shard
        clips = self.splits[shard.split][first : first + self.clips_per_shard]
        return [Piece(shard, i, tuple(clips[i : i + size])) for i in range(0, len(clips), size)]

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """All that the result depends on, by name; equal for runs that must give equal files."""
        return {
            "layout": LAYOUT,
            "name": self.listing.name,
            "modalities": list(self.listing.modalities),
            "texts": list(self.listing.texts),
            **dataclasses.asdict(self.settings),
            "clips_per_shard": self.clips_per_shard,
            "splits": list(self.splits),
            "listing": _digest(self.listing),
        }


def make_plan(
    listing: Listing,
    settings: Settings,
    clips_per_shard: int = 256,
    splits: Sequence[str] = (),
    modalities: Sequence[str] = (),
) -> Plan:
    """The plan for `listing`, or for some of its splits and modalities. UserError if it leaves nothing to prepare."""
    if clips_per_shard < 1:
        raise UserError(f"--clips_per_shard={clips_per_shard} must be at least 1")
    listing = _restricted(listing, modalities)
    _check_classes(listing)
    by_split: dict[str, list[Clip]] = {}
    for clip in listing.clips:
        by_split.setdefault(clip.split, []).append(clip)
    for split in splits:
        if split not in by_split:
            raise UserError(f"--splits names {split!r}, and no clip is in it{nearest(split, by_split)}")
    if not by_split:
        raise UserError(f"{listing.title} lists no clip that can be used{_first_problem(listing)}")
    chosen = {s: _ordered(listing.name, by_split[s]) for s in sorted(by_split) if s in (splits or by_split)}
    return Plan(listing, settings, clips_per_shard, chosen)


def _first_problem(listing: Listing) -> str:
    return f": {listing.problems[0][0]}: {listing.problems[0][2]}" if listing.problems else ""


def _restricted(listing: Listing, modalities: Sequence[str]) -> Listing:
    """With the modalities that were asked for; without text there are no text sets."""
    for m in modalities:
        if m not in MODALITIES:
            raise UserError(f"--modalities names {m!r}{nearest(m, MODALITIES)}")
    if "text" in modalities and not listing.texts:
        raise UserError(f"--modalities names text, and {listing.title} has no text; leave it out or add the texts")
    chosen = tuple(m for m in MODALITIES if m in (modalities or listing.modalities))
    return dataclasses.replace(listing, modalities=chosen, texts=listing.texts if "text" in chosen else ())


def _check_classes(listing: Listing) -> None:
    """TFDS keeps class names as the lines of a file."""
    for name, labels in listing.label_sets.items():
        for label in labels.classes:
            if not label.strip() or label != label.strip() or "\n" in label:
                raise UserError(f"the class {label!r} of {name} is empty, begins or ends with a space or has two lines")


def _ordered(name: str, clips: list[Clip]) -> list[Clip]:
    return sorted(clips, key=lambda clip: hashlib.sha256(f"{name}\0{clip.id}".encode()).digest())


def _digest(listing: Listing) -> str:
    """Of everything in the listing but what `Plan.facts` names; clips go in by parts, for there may be millions."""
    whole, encode = hashlib.sha256(), json.JSONEncoder(sort_keys=True).encode
    for first in range(0, len(listing.clips), _AT_ONCE):
        whole.update(encode([*map(_fields, listing.clips[first : first + _AT_ONCE])]).encode())
    rest = dataclasses.asdict(dataclasses.replace(listing, clips=[], modalities=(), texts=()))
    whole.update(json.dumps(rest, sort_keys=True).encode())
    return whole.hexdigest()


def _fields(clip: Clip) -> tuple:
    """All that a clip says. dataclasses.asdict would take several times as long."""
    return *_CLIP(clip), {name: [*map(_LABEL, labels)] for name, labels in clip.labels.items()}
