"""A user's own list of clips, csv or JSON lines by suffix, read into a `Listing`.

Columns or keys: media (required), id, start, end, source, split, text, text.<set>, labels, labels.<set>; what begins
with "_" is a comment. In csv cells "|" separates several texts or labels, and a label with a time is "name@start-end"
in seconds. In JSON lines they are lists of strings, a label with a time {"name": .., "start": .., "end": ..}.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mmr_jax.data.prepare import fields, tables
from mmr_jax.data.prepare.listing import (
    AUDIO_SUFFIXES,
    IMAGE_SUFFIXES,
    Clip,
    Collector,
    Listing,
    encodable,
    label_set,
)
from mmr_jax.errors import UserError


def read(path: Path) -> Listing:
    """The listing of a manifest; UserError with the line for whatever cannot be meant.

    A repeated id, or a cut of a file that stands in two splits, drops the later row into `problems`. Sets of texts or
    labels that no row has anything in are left out.
    """
    path = Path(path)
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"{path} names no clip")
    texts, labels = (_sets([getattr(row.cells, kind) for row in rows]) for kind in ("texts", "labels"))
    found = Collector(one_split=True)
    for row in rows:
        found.add(_clip(row.cells, texts, labels), path.name, row.line, row.intact)
    return _listing(path, found, texts, labels)


def _listing(path: Path, found: Collector, texts: tuple[str, ...], labels: tuple[str, ...]) -> Listing:
    stem = encodable(path.absolute().parent.name if path.stem == "manifest" else path.stem)
    return Listing(
        name=_slug(stem),
        title=stem,
        clips=found.clips,
        modalities=_modalities(found.clips, texts),
        label_sets={name: label_set(found.clips, name) for name in labels},
        texts=texts,
        notes=(f"{len(found.clips)} clips by {encodable(path.name)}",),
        problems=found.problems,
    )


def _rows(path: Path) -> Iterator[tables.Row]:
    """The rows with `fields.Fields` as cells."""
    kind = path.suffix.lower()
    if kind == ".csv":
        header = next(tables.csv_rows(path), tables.Row(1, [], True)).cells
        tables.check_header(path, header, ["media"])
        fields.check_keys(header, str(path))
        rows, parse = tables.table(path, ["media"]), fields.from_csv
    elif kind == ".jsonl":
        rows, parse = tables.json_lines(path), fields.from_json
    else:
        raise UserError(f"{path} is no manifest; expected a file that ends in .csv or .jsonl")
    return (row._replace(cells=parse(row.cells, f"{path} line {row.line}")) for row in rows)


def _clip(row: fields.Fields, texts: tuple[str, ...], labels: tuple[str, ...]) -> Clip:
    default = PurePosixPath(row.media).stem + ("" if row.start is None else f"_{round(1000 * row.start):06d}")
    return Clip(
        id=row.id or default,
        split=row.split,
        media=row.media,
        start=row.start or 0.0,
        end=row.end,
        source=row.source,
        texts={name: row.texts.get(name, ()) for name in texts},
        labels={name: row.labels.get(name, ()) for name in labels},
    )


def _sets(rows: list[dict[str, tuple]]) -> tuple[str, ...]:
    """Names of the sets that any row has something in, in order of appearance."""
    return tuple(dict.fromkeys(name for row in rows for name, items in row.items() if items))


def _modalities(clips: list[Clip], texts: tuple[str, ...]) -> tuple[str, ...]:
    """By suffix: audio files and images have one, anything else is taken for a container of both."""
    suffixes = {PurePosixPath(clip.media).suffix.lower() for clip in clips}
    audio, frames = bool(suffixes - IMAGE_SUFFIXES), bool(suffixes - AUDIO_SUFFIXES)
    return ("audio",) * audio + ("frames",) * frames + ("text",) * bool(texts)


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return slug if fields.NAME.fullmatch(slug) else f"set_{slug}".rstrip("_")
