"""Data sets: each module turns the publisher's own label files into a `Listing`."""

import importlib
from pathlib import Path

from mmr_jax.data.prepare.listing import Listing
from mmr_jax.data.sets.files import find_media
from mmr_jax.errors import UserError, nearest

__all__ = ["SETS", "find_media", "load"]

_NAMES = (
    "audioset",
    "ave",
    "captions",
    "esc",
    "grid",
    "imagenet_captions",
    "kinetics400",
    "vggsound",
)
SETS = {name: f"mmr_jax.data.sets.{name}" for name in _NAMES}


def load(name: str, labels: Path, media: Path) -> Listing:
    """The listing of the data set `name` from its label files in `labels`; media are only looked up by name."""
    if name not in SETS:
        raise UserError(f"{name!r} is no data set{nearest(name, SETS)}")
    return importlib.import_module(SETS[name]).listing(Path(labels), Path(media))
