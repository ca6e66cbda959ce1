"""Histograms of durations and labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmr_jax.robustness.report import canvas
from mmr_jax.robustness.report.blocks import Picture

_NAMED = 30  # classes at most whose names stand at their bars


def durations(found: Mapping[str, Any]) -> Picture:
    """Clips by seconds, an outline per split; the axis of clips is logarithmic, so that a few odd ones show."""
    drawn = canvas.figure(3.6)
    axes = drawn.add_subplot()
    edges, splits = found["edges"], found["splits"]
    handles = [
        axes.stairs(of["counts"], edges, linewidth=1.8, color=canvas.style(i)["color"])
        for i, of in enumerate(splits.values())
    ]
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_title("Durations", fontsize=canvas.FONT + 1, fontweight="bold")
    canvas.finish(axes, "seconds", "clips")
    canvas.legend_below(drawn, handles, list(splits), 4)
    return Picture("durations.png", "Durations", canvas.png(drawn), "Clips by duration, one line for each split")


def labels(name: str, found: Mapping[str, Any]) -> Picture:
    """Examples per class: bars with names, most frequent first, or of many classes the sorted numbers."""
    splits = {split: of["counts"] for split, of in found["splits"].items()}
    total = {c: sum(counts[c] for counts in splits.values()) for c in next(iter(splits.values()))}
    order = sorted(total, key=lambda c: -total[c])
    few = len(order) <= _NAMED
    drawn = canvas.figure(1.6 + 0.24 * len(order) if few else 3.6)
    axes = drawn.add_subplot()
    handles, left = [], np.zeros(len(order))
    for i, counts in enumerate(splits.values()):
        values, colour = np.array([counts[c] for c in order]), canvas.style(i)["color"]
        if few:
            handles.append(axes.barh(range(len(order)), values, left=left, color=colour))
            left += values
        else:
            handles += axes.plot(range(1, len(order) + 1), np.sort(values)[::-1], color=colour, linewidth=1.8)
    if few:
        axes.set_yticks(range(len(order)), [canvas.label(c) for c in order])
        axes.invert_yaxis()
    else:
        axes.set_yscale("symlog", linthresh=1)
    canvas.finish(axes, *(("examples", "") if few else ("classes, each split in its own order", "examples")))
    axes.set_title(canvas.label(name), fontsize=canvas.FONT + 1, fontweight="bold")
    canvas.legend_below(drawn, handles, list(splits), 4)
    return Picture(f"labels-{canvas.slug(name)}.png", name, canvas.png(drawn), f"Examples per class of {name}")
