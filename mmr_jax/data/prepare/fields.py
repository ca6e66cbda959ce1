"""The fields of one row of a manifest, from csv cells or from a JSON object."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from mmr_jax.data.prepare import tables
from mmr_jax.data.prepare.listing import Label
from mmr_jax.errors import UserError, nearest

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # of splits and sets: they become parts of file names and feature names
_PLAIN = ("media", "id", "start", "end", "source", "split")
_KNOWN = (*_PLAIN, "text", "labels")
_TIMED = re.compile(r"(.*)@([^@-]+)-([^@-]+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Fields:
    """A row of a manifest, checked. `id` and `source` may be empty; times are in seconds, None where not given."""

    media: str
    id: str
    split: str
    source: str
    start: float | None
    end: float | None
    texts: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[Label, ...]]


def check_keys(keys: list[str], where: str) -> None:
    """UserError for a column or key that means nothing, or a set that is there twice."""
    seen = set()
    for key in keys:
        kind, _, name = key.partition(".")
        if key.startswith("_") or key in _PLAIN:
            continue
        if kind not in ("text", "labels") or ("." in key and not NAME.fullmatch(name)):
            raise UserError(f"{where}: unknown column {key!r}{nearest(key, _KNOWN)}; a comment's name begins with _")
        if (kind, name or kind) in seen:
            raise UserError(f"{where}: the {kind} set {name or kind!r} is there twice")
        seen.add((kind, name or kind))


def from_csv(cells: dict[str, str], where: str) -> Fields:
    """The fields of a csv row by column; UserError that begins with `where` for what cannot be meant."""
    plain = {key: cells.get(key) or None for key in _PLAIN}
    parts = {key: [part.strip() for part in cell.split("|") if part.strip()] for key, cell in cells.items()}
    return _checked(plain, parts, lambda text: _csv_label(text, where), where)


def from_json(value: dict[str, Any], where: str) -> Fields:
    """The same of a JSON object."""
    check_keys(list(value), where)
    plain = {key: value.get(key) for key in _PLAIN}
    for key in ("media", "id", "source", "split"):
        if not isinstance(plain[key], str | None):
            raise UserError(f"{where}: {key} is {plain[key]!r}; expected a string")
    for key in ("start", "end"):
        if isinstance(plain[key], str | bool):
            raise UserError(f"{where}: {key} is {plain[key]!r}; expected a number of seconds")
    parts = {key: _json_list(v, key, where) for key, v in value.items() if key not in _PLAIN and key[:1] != "_"}
    return _checked(plain, parts, lambda item: _json_label(item, where), where)


def _checked(plain: dict[str, Any], parts: dict[str, list], label: Callable[[Any], Label], where: str) -> Fields:
    split = plain["split"] or "train"
    if not NAME.fullmatch(split):
        raise UserError(f"{where}: split {split!r} must be letters, digits and _, and begin with a letter")
    start, end = plain["start"], plain["end"]
    if start is not None:
        start = tables.seconds(start, f"{where}: start")
    if end is not None:
        _, end = tables.span(start or 0.0, end, where)
    sets: dict[str, dict] = {"text": {}, "labels": {}}
    for key, items in parts.items():
        kind, _, name = key.partition(".")
        if kind in sets:
            values = items if kind == "text" else dict.fromkeys(map(label, items))
            sets[kind][name or kind] = tuple(values)
    if not plain["media"]:
        raise UserError(f"{where}: media is empty; expected a path relative to the media folder")
    media = PurePosixPath(plain["media"]).as_posix()
    return Fields(media, plain["id"] or "", split, plain["source"] or "", start, end, sets["text"], sets["labels"])


def _json_list(value: Any, key: str, where: str) -> list:
    items = [value] if isinstance(value, str) else [] if value is None else value
    kinds = str if key.startswith("text") else str | dict
    if not isinstance(items, list) or not all(isinstance(item, kinds) for item in items):
        expected = "a list of strings" if kinds is str else "a list of names or of {name, start, end}"
        raise UserError(f"{where}: {key} is {value!r}; expected {expected}")
    items = [item.strip() if isinstance(item, str) else item for item in items]
    return [item for item in items if item != ""]


def _csv_label(text: str, where: str) -> Label:
    if "@" not in text:
        return _label(text, where)
    match = _TIMED.fullmatch(text)
    if not match:
        raise UserError(f"{where}: label {text!r}; expected a name, or name@start-end in seconds")
    return _label(match[1], where, match[2], match[3])


def _json_label(item: str | dict, where: str) -> Label:
    if isinstance(item, str):
        return _label(item, where)
    for key in item:
        if key not in ("name", "start", "end"):
            raise UserError(f"{where}: a label has the unknown key {key!r}{nearest(key, ('name', 'start', 'end'))}")
    name = tables.field(item, "name", str, f"{where}: a label")
    return _label(name, where, item.get("start"), item.get("end"))


def _label(name: str, where: str, start: Any = None, end: Any = None) -> Label:
    name = " ".join(name.split())  # class names are stored one a line
    if not name:
        raise UserError(f"{where}: a label has no name")
    what = f"{where}: label {name!r}"
    start = 0.0 if start is None else tables.seconds(start, f"{what}: start")
    return Label(name, start) if end is None else Label(name, *tables.span(start, end, what))
