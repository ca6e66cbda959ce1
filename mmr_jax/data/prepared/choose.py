"""Which clips make a split of a study: sentences such as "train[10%:]" or "runs/audioset/unbalanced*2 + train"."""

import re
from typing import NamedTuple

import numpy as np

from mmr_jax.errors import UserError

_PART = re.compile(
    r"(?:(?P<folder>.+)/)?(?P<split>[\w-]+)(?:\[(?:(?P<start>\d+)%)?:(?:(?P<stop>\d+)%)?\])?(?:#(?P<label>[\w-]+))?(?:\*(?P<weight>\d+(?:\.\d+)?))?"
)


class Part(NamedTuple):
    """A share of a prepared split: `folder` "" is data.folder, `label` "" is data.label, `weight` 0 is no mixture."""

    folder: str
    split: str
    start: float  # of 0 to 1
    stop: float
    label: str
    weight: float


def parse(text: str, field: str) -> list[Part]:
    """The parts of `[folder/]split[[from%:to%]][#label set][*weight]`, joined by ` + `.

    Either all parts have a weight or none: with weights training draws from each in that proportion.
    """
    parts = [_part(piece.strip(), text, field) for piece in text.split(" + ")]
    if len({part.weight > 0 for part in parts}) > 1:
        raise UserError(f"{field} is {text!r}: either every part has a weight (split*2) or none")
    return parts


def _part(piece: str, text: str, field: str) -> Part:
    found = _PART.fullmatch(piece)
    if not found:
        raise UserError(
            f"{field} is {text!r}; splits are written like train, train[10%:], FOLDER/train*2 + test#labels"
        )
    start, stop = float(found["start"] or 0) / 100, float(found["stop"] or 100) / 100
    if not 0 <= start < stop <= 1:
        raise UserError(f"{field} is {text!r}: {piece!r} selects nothing; percentages go from 0 to 100")
    weight = found["weight"]
    if weight and not float(weight) > 0:
        raise UserError(f"{field} is {text!r}: a weight must be above 0")
    return Part(found["folder"] or "", found["split"], start, stop, found["label"] or "", float(weight or 0))


def rows_of(part: Part, size: int) -> np.ndarray:
    """Rows int64 of a split of `size` records: a slice, which is a random sample as the records lie in random order."""
    return np.arange(round(part.start * size), round(part.stop * size), dtype=np.int64)
