"""Blocks as one self-contained HTML page: no script, no network, readable from a phone to a wide screen."""

import base64
from collections.abc import Sequence
from html import escape

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

READABLE = 0.37  # screen pixels per picture pixel below which its text is too small: it scrolls instead
STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #59636e; --line: #d5dae0; --page: #fff;
  --box: #f6f7f9; --strong: #0a5aa5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa5b1; --line: #3a424b;
  --page: #14181c; --box: #1d2329; --strong: #8cc4ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1.5rem 1rem 4rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: anywhere; -webkit-text-size-adjust: 100%; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .8rem; padding-top: .8rem; border-top: 1px solid var(--line); }
p, ul { max-width: 46rem; }
.lead { font-size: 1.06rem; }
figure { margin: 1.2rem 0; }
figcaption { font-weight: 600; margin-bottom: .4rem; }
.note { color: var(--soft); font-size: .88rem; margin: .4rem 0 0; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .4rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; }
td { white-space: nowrap; }
thead th { vertical-align: bottom; background: var(--box); font-weight: 600; }
tbody tr:last-child > * { border-bottom: 0; }
th:first-child { position: sticky; left: 0; text-align: left; background: var(--box); font-weight: 600;
  border-right: 1px solid var(--line); }
th:first-child span { display: block; width: max-content; max-width: min(14rem, 40vw);
  overflow-wrap: break-word; }
td strong { color: var(--strong); }
.gallery { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.gallery figure { margin: 0; max-width: 40rem; }
img { display: block; width: 100%; height: auto; background: #fff; padding: 4px; }
details { margin: .8rem 0; border: 1px solid var(--line); border-radius: 6px; padding: .5rem .8rem; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .82rem; line-height: 1.45; overflow-wrap: normal; }
"""


def page(title: str, blocks: Sequence[Block]) -> str:
    """The whole document; every text is escaped, pictures are inlined."""
    body = "\n".join(_block(block, first=i == 0) for i, block in enumerate(blocks))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _block(block: Block, first: bool) -> str:
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Paragraph(text):
            return f'<p class="{"lead" if first else "text"}">{escape(text)}</p>'
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _table(block)
        case Gallery(pictures, note):
            return f'<div class="gallery">{"".join(map(_picture, pictures))}</div>{_note(note)}'
        case Code(title, text):
            return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"><span>{escape(column)}</span></th>' for column in table.columns)
    lines = []
    for i, row in enumerate(table.rows):
        cells = [f'<th scope="row"><span>{escape(row[0])}</span></th>']
        for j, text in enumerate(row[1:], start=1):
            shown = f"<strong>{escape(text)}</strong>" if (i, j) in table.bold else escape(text)
            cells.append(f"<td>{shown}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return (
        f'<figure><figcaption>{escape(table.title)}</figcaption><div class="scroll" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
        f"{_note(table.note)}</figure>"
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    pixels = int.from_bytes(picture.png[16:20], "big")  # width, in the header of every PNG
    return (
        f'<figure><div class="scroll" tabindex="0"><img style="min-width:{pixels * READABLE:.0f}px" '
        f'alt="{escape(picture.alt)}" src="data:image/png;base64,{data}"></div></figure>'
    )


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""
