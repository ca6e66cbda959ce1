"""The M_T x M_E matrix of a method as a heat map with the value in every cell."""

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle

from mmr_jax.robustness.report import canvas
from mmr_jax.robustness.report.blocks import Gallery, Picture
from mmr_jax.robustness.report.content import Content
from mmr_jax.robustness.report.words import metric_name, scale_of
from mmr_jax.robustness.subsets import all_subsets

CELL = 0.56  # inches
MARGIN = 1.75  # inches, for the row names; the column names stand at an angle


def heat_maps(content: Content) -> Gallery:
    """One heat map per method, all on the same colour scale; M_T = M_E framed, the lowest of a row bold."""
    values = {m: _array(content, m) for m in content.methods}
    low = min(array.min() for array in values.values())
    high = max(array.max() for array in values.values())
    pictures = [_heat_map(content, m, i, values[m], (low, high)) for i, m in enumerate(content.methods)]
    note = (
        f"Rows: trained on M_T; columns: evaluated on M_E; {metric_name(content)}, mean over seeds. "
        "Framed: M_T = M_E. Bold and underlined: lowest of its row, R(M_T)."
    )
    return Gallery(pictures, note)


def _array(content: Content, method: str) -> np.ndarray:
    matrix = content.matrices[method]
    columns = all_subsets(content.modalities)
    return np.array([[matrix[row][column].mean for column in columns] for row in content.train_subsets])


def _heat_map(content: Content, method: str, index: int, values: np.ndarray, limits) -> Picture:
    rows, columns = content.train_subsets, all_subsets(content.modalities)
    width = max(canvas.WIDTH, MARGIN + CELL * len(columns))
    drawn = canvas.figure(MARGIN + CELL * len(rows), width)
    axes = drawn.add_subplot()
    axes.imshow(values, cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set_title(canvas.label(method), fontsize=canvas.FONT + 1, fontweight="bold")
    for position, names, axis in ((rows, rows, axes.yaxis), (columns, columns, axes.xaxis)):
        axis.set_ticks(range(len(position)), [canvas.label(name) for name in names])
    axes.tick_params(labelsize=canvas.FONT - 1, length=0)
    axes.tick_params(axis="x", rotation=40)
    for text in axes.get_xticklabels():
        text.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel("evaluated on M_E", fontsize=canvas.FONT)
    axes.set_ylabel("trained on M_T", fontsize=canvas.FONT)
    axes.spines[:].set_visible(False)
    _write_values(axes, content, values, limits)
    alt = f"Heat map of {method}: rows are training sets, columns evaluation sets"
    return Picture(f"matrix-{index + 1}-{canvas.slug(method)}.png", method, canvas.png(drawn), alt)


def _write_values(axes, content: Content, values: np.ndarray, limits) -> None:
    """The number in each cell, dark on light and light on dark; frame where M_T = M_E."""
    scale, columns = scale_of(content), all_subsets(content.modalities)
    spread = (limits[1] - limits[0]) or 1
    for i, row in enumerate(content.train_subsets):
        for j, column in enumerate(columns):
            lowest = values[i, j] == values[i].min()
            text = scale.number(values[i, j])
            shade = matplotlib.colormaps["cividis"]((values[i, j] - limits[0]) / spread)
            light = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] > 0.5
            colour = "black" if light else "white"
            weight = "bold" if lowest else "normal"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=10, fontweight=weight)
            if lowest:
                axes.plot([j - 0.3, j + 0.3], [i + 0.27] * 2, color=colour, linewidth=1.2)
            if row == column:
                axes.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec=colour, lw=1.3))
