"""Text token by token: what was hidden as blocks, what was predicted in colour, what was predicted wrong underlined."""

import codecs
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mmr_jax.data import bpe
from mmr_jax.data.text import BEGIN, END, FIRST, PAD, encode_words
from mmr_jax.robustness.report.canvas import COLOURS

COLUMNS = 30  # characters per line
SIZE = 8.5
HIDDEN = "#9a9a9a"
_SPECIAL = {PAD: "·", BEGIN: "‹", END: "›"}
# state of a token: (colour of its text, of its background)
STYLES = {
    "shown": ("black", None),
    "hidden": (HIDDEN, HIDDEN),
    "right": (COLOURS[0], "#dcebf7"),
    "wrong": (COLOURS[1], "#fbe3d6"),
}
Token = tuple[str, str]


def panels(
    spec: Mapping, words: Sequence[str], ids: np.ndarray, output: np.ndarray, hidden: np.ndarray, exists: np.ndarray
) -> list[list[Token]]:
    """(text, state) of every token of input, masked input and output; ids, output int [T], hidden, exists bool [T]."""
    ids, output, hidden = ids[exists], output[exists], hidden[exists]
    true, made = decode(spec, words, ids), decode(spec, words, output)
    states = np.where(hidden, np.where(ids == output, "right", "wrong"), "shown").tolist()
    return [
        [(text, "shown") for text in true],
        [(text, "hidden" if h else "shown") for text, h in zip(true, hidden, strict=True)],
        list(zip(made, states, strict=True)),
    ]


def decode(spec: Mapping, words: Sequence[str], ids: np.ndarray) -> list[str]:
    """The text of each token. Of hashed words it is looked up in `words`, those that hash alike joined by a slash;
    one that is not among them is written as #id."""
    if spec.get("tokenizer", "byte") == "byte":
        return _decode_bytes(ids)
    if spec["tokenizer"] in bpe.KINDS:
        return [bpe.token_text(i, spec) for i in ids.tolist()]
    found: dict[int, list[str]] = {}
    for word in words:
        token = int(encode_words(word, spec)[0][0])
        found.setdefault(token, [])
        found[token] += [word] if word not in found[token] else []
    return ["/".join(found[i]) if i in found else _SPECIAL.get(i, f"#{i}") for i in ids.tolist()]


def _decode_bytes(ids: np.ndarray) -> list[str]:
    """One text per byte: a character of several bytes stands at its last one, control characters are dots."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [_SPECIAL[i] if i < FIRST else decoder.decode(bytes([i - FIRST])) for i in ids.tolist()]
    return ["".join(c if c.isprintable() else "·" for c in text) for text in texts]


def layout(tokens: Sequence[Token], gap: int) -> tuple[list[tuple[int, int]], int]:
    """((line, column) of every token, number of lines): as many as fit into COLUMNS, `gap` columns apart."""
    line, column, places = 0, 0, []
    for text, _ in tokens:
        width = max(len(text), 1)
        if column and column + width > COLUMNS:
            line, column = line + 1, 0
        places.append((line, column))
        column += width + gap
    return places, line + 1


def draw(axes: Axes, tokens: Sequence[Token], gap: int, lines: int) -> None:
    """Write tokens into axes of `lines` lines."""
    axes.set(xlim=(-0.5, COLUMNS + 0.5), ylim=(lines, 0))
    for (text, state), (line, column) in zip(tokens, layout(tokens, gap)[0], strict=True):
        ink, paper = STYLES[state]
        width = max(len(text), 1)
        if paper:
            axes.add_patch(Rectangle((column, line + 0.08), width, 0.84, color=paper, linewidth=0))
        if state != "hidden":
            for i, character in enumerate(text):  # one by one: the grid does not depend on the font
                style = dict(color=ink, fontsize=SIZE, family="monospace", ha="center", va="center")
                axes.text(column + i + 0.5, line + 0.5, character.replace("$", r"\$"), **style)
        if state == "wrong":
            axes.plot([column, column + width], [line + 0.9] * 2, color=ink, linewidth=1.2)
