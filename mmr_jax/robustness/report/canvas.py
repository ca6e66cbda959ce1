"""How every picture of a report looks: size, fonts, colours that colour-blind readers can tell apart."""

import io
import re

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito (2008), without the yellow that vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vP*X<>"
LINES = ("-", "--", ":", "-.")
WIDTH = 5.4  # inches: at a phone's 350 pixels an 11-point letter is still about 10 pixels high
FONT = 11
DPI = 160


def figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of that size in inches, drawn without the global state of pyplot."""
    made = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def png(drawn: Figure) -> bytes:
    """The figure as PNG bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def style(index: int) -> dict:
    """Colour, marker and line of the i-th method."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[(index // len(COLOURS)) % len(LINES)],
    }


def label(text: str, longest: int = 28) -> str:
    """A name as matplotlib shows it literally: "$" starts no formula, a leading "_" hides nothing."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def slug(text: str) -> str:
    """A name as part of a file name: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"


def finish(axes: Axes, x: str, y: str) -> None:
    """Axis labels, readable ticks, light grid, no box."""
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)
    axes.tick_params(labelsize=FONT - 1)
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(drawn: Figure, handles: list, names: list[str], columns: int = 2) -> None:
    """One legend under the axes, so that it never covers data."""
    drawn.legend(
        handles,
        [label(name, longest=28 if columns > 1 else 52) for name in names],
        loc="outside lower center",
        ncols=min(columns, len(names)),
        fontsize=FONT - 1,
        frameon=False,
    )
