"""The report as index.html and report.json, and its main tables on the terminal."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from mmr_jax.data.validate import charts, tables
from mmr_jax.data.validate.examples import Pictures
from mmr_jax.files import write_text
from mmr_jax.robustness.report import html
from mmr_jax.robustness.report.blocks import Block, Bullets, Gallery, Heading, Paragraph, Table

_NOTHING = "Nothing suspicious was found."


def write(out: Path, found: Mapping[str, Any], pictures: Pictures) -> Path:
    """Writes both files into the folder `out`; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.json", json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(out / "index.html", html.page(f"{found['title']}: the data", blocks(found, pictures)))
    return out / "index.html"


def show(found: Mapping[str, Any], console: Console) -> None:
    """Counts, the numbers for the config and what is suspicious."""
    for make in (tables.clips, tables.combinations, tables.durations, tables.log_mel, tables.pixels, tables.suspicious):
        table = make(found)
        if table is not None:
            console.print(_drawn(table))
    if not found["suspicious"]:
        console.print(_NOTHING)


def blocks(found: Mapping[str, Any], pictures: Pictures) -> list[Block]:
    """All sections after the title; one without content is left out with its heading."""
    examples = "The first clips of each split, which are random ones."
    if found["share"] < 1:
        examples = "The first clips of each split that were read, which are random ones."
    sections = {
        "": [Paragraph(_lead(found)), Bullets(found["notes"]) if found["notes"] else None],
        "Suspicious": [tables.suspicious(found)],
        "Clips": [tables.clips(found), tables.combinations(found)],
        "Durations": [Gallery([charts.durations(found["durations"])]), tables.durations(found)],
        "For the config": [tables.log_mel(found), tables.pixels(found)],
        "Texts": [tables.texts(found)],
        "Labels": _labels(found["labels"]),
        "Examples": [Gallery(pictures["examples"], examples)] if pictures["examples"] else [],
        "Suspicious examples": [Gallery(pictures["suspicious"])] if pictures["suspicious"] else [],
        "What is suspicious, case by case": [tables.cases(*item) for item in found["suspicious"].items()],
    }
    made: list[Block] = []
    for heading, parts in sections.items():
        present = [part for part in parts if part is not None]
        made += ([Heading(heading)] if heading and present else []) + present
    return made


def _labels(found: Mapping[str, Any]) -> list[Block]:
    used = {name: of for name, of in found.items() if any(s["labelled"] for s in of["splits"].values())}
    charted = [Gallery([charts.labels(name, of) for name, of in used.items()])] if used else []
    return charted + [tables.labels(name, of) for name, of in found.items()]


def _lead(found: Mapping[str, Any]) -> str:
    read, clips = (sum(split[key] for split in found["splits"].values()) for key in ("read", "clips"))
    kinds = len(found["suspicious"])
    what = f"{kinds} kinds of suspicious things were found, listed below." if kinds > 1 else _NOTHING
    what = "One kind of suspicious thing was found, listed below." if kinds == 1 else what
    settings = ", ".join(f"{name} {value}" for name, value in found["settings"].items())
    return f"{found['folder']}: {read:,} of {clips:,} clips were read. {what} Prepared with {settings}."


def _drawn(table: Table) -> Drawn:
    drawn = Drawn(title=_text(table.title), caption=_text(table.note) if table.note else None)
    for i, column in enumerate(table.columns):
        drawn.add_column(_text(column), justify="right" if i else "left")
    for row in table.rows:
        drawn.add_row(*map(_text, row))
    return drawn


def _text(cell: str) -> Text:
    """Names as they are: no markup, and no control characters that a terminal would obey."""
    return Text("".join(c if c.isprintable() else "?" for c in cell))
