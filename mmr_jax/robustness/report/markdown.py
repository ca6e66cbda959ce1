"""Blocks as Markdown (tables of the GitHub kind); pictures are linked from a folder beside the file."""

import re
from collections.abc import Sequence

from mmr_jax.robustness.report.blocks import (
    Block,
    Bullets,
    Code,
    Gallery,
    Heading,
    Paragraph,
    Picture,
    Table,
)


def plain(text: str) -> str:
    """A text that Markdown shows literally: markup characters escaped, HTML inert, on one line."""
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|#~$!])", r"\\\1", text)
    # Inside a word an underscore is no markup; leaving it keeps names such as wise_ft readable.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    # At the start of a line these would open a list or a rule.
    return re.sub(r"^(\d*)([-+=.)])(?=[-+=\s]|$)", r"\1\\\2", text)


def document(title: str, blocks: Sequence[Block], folder: str) -> str:
    """The whole text; pictures are expected in `folder`."""
    parts = [f"# {plain(title)}", *(_block(block, folder) for block in blocks)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, folder: str) -> str:
    match block:
        case Heading(text):
            return f"## {plain(text)}"
        case Paragraph(text):
            return plain(text)
        case Bullets(items):
            return "\n".join(f"- {plain(item)}" for item in items)
        case Table():
            return _table(block)
        case Gallery(pictures, note):
            shown = "\n\n".join(_picture(picture, folder) for picture in pictures)
            return f"{shown}\n\n{plain(note)}" if note else shown
        case Code(title, text):
            return f"**{plain(title)}**\n\n{_fenced(text)}"


def _table(table: Table) -> str:
    lines = [_line(table.columns), "|" + "---|" + "---:|" * (len(table.columns) - 1)]
    for i, row in enumerate(table.rows):
        cells = [plain(text) for text in row]
        lines.append(_raw_line([f"**{c}**" if (i, j) in table.bold else c for j, c in enumerate(cells)]))
    shown = f"**{plain(table.title)}**\n\n" + "\n".join(lines)
    return f"{shown}\n\n{plain(table.note)}" if table.note else shown


def _line(texts: list[str]) -> str:
    return _raw_line([plain(text) for text in texts])


def _raw_line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _picture(picture: Picture, folder: str) -> str:
    return f"![{plain(picture.alt)}]({folder}/{picture.name})"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}json\n{text}\n{fence}"
