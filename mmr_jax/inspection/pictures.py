"""Pictures of reconstructions: per modality the input, what the model sees of it, and what it makes of that."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from mmr_jax.inspection import text_panel
from mmr_jax.models.patches import unpatchify
from mmr_jax.robustness.report import canvas

TITLES = ("input", "what the model sees", "output")
COLUMN = 2.9  # inches
LINE = 0.19  # inches, of text
LOWEST, HIGHEST = 0.6, 2.4  # inches of a row
GREY = 0.6
FEW = 4  # frames of a video that are all drawn; of more the first and the last
_MAPS = {"spectrogram": "magma", "features": "viridis"}


def pixels(tokenizer, values: np.ndarray) -> np.ndarray:
    """Values [T, dim] of all patches -> one picture [rows, columns, C], top row first, of any dtype.

    Spectrogram: time to the right, low frequencies at the bottom. Video: frames side by side. Features: time to the
    right.
    """
    cfg = tokenizer.cfg
    if cfg.kind == "features":
        return values.T[..., None]
    whole = unpatchify(values[None], tokenizer.grid, tuple(cfg.patch_size))[0]
    if cfg.kind == "spectrogram":
        return whole.transpose(1, 0, 2)[::-1]
    if cfg.kind == "video":
        frames = range(len(whole)) if len(whole) <= FEW else (0, -1)
        return np.concatenate([whole[f] for f in frames], axis=1)
    return whole


def colours(tokenizer, picture: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """A picture [rows, columns, C] in the model's units -> RGB [rows, columns, 3] in [0, 1]."""
    cfg = tokenizer.cfg
    if cfg.kind in _MAPS:
        low, high = limits
        shade = (picture[..., 0] - low) / ((high - low) or 1.0)
        return matplotlib.colormaps[_MAPS[cfg.kind]](np.clip(shade, 0, 1))[..., :3]
    bright = np.clip(picture * np.asarray(cfg.std) + np.asarray(cfg.mean), 0, 1)
    return bright if bright.shape[-1] == 3 else np.repeat(bright[..., :1], 3, axis=-1)


def pictures(tokenizer, patches: np.ndarray, output: np.ndarray, hidden: np.ndarray, exists: np.ndarray) -> list:
    """RGB pictures of input, masked input (hidden patches grey) and output; what does not exist is white.

    patches, output float [T, dim]; hidden, exists bool [T]. All three have the colour scale of the input.
    """
    there, unseen = (
        pixels(tokenizer, np.broadcast_to(mask[:, None], patches.shape))[..., :1] for mask in (exists, hidden)
    )
    limits = (float(patches[exists].min()), float(patches[exists].max()))
    before, after = (np.where(there, colours(tokenizer, pixels(tokenizer, p), limits), 1.0) for p in (patches, output))
    return [before, np.where(unseen, GREY, before), after]


def draw_example(title: str, shown: Mapping[str, tuple], words: Sequence[str] = ()) -> bytes:
    """One PNG: a row per modality, the columns of TITLES.

    shown: {m: (tokenizer, patches, output, hidden, exists)}, arrays of one example as for `pictures`, ids of texts int
    [T]. `words`: what hashed words may be.
    """
    rows = {m: _row(words, *what) for m, what in shown.items()}
    heights = [height for height, _ in rows.values()]
    drawn = canvas.figure(sum(heights) + 0.3 * len(heights) + 0.6, 3 * COLUMN + 0.4)
    drawn.suptitle(canvas.label(title, longest=70), fontsize=canvas.FONT)
    grid = drawn.subplots(len(rows), 3, squeeze=False, height_ratios=heights)
    for line, (name, (_, paint)) in zip(grid, rows.items(), strict=True):
        for column, axes in enumerate(line):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            paint(axes, column)
            if axes in grid[0]:
                axes.set_title(TITLES[column], fontsize=canvas.FONT - 1)
        line[0].set_ylabel(canvas.label(name), fontsize=canvas.FONT)
    return canvas.png(drawn)


def _row(words, tokenizer, patches, output, hidden, exists) -> tuple[float, object]:
    """(height in inches, function that paints column i into axes) of one modality."""
    if not exists.any():
        return LOWEST, _absent
    if tokenizer.cfg.kind == "text":
        return _text_row(words, tokenizer.cfg, patches, output, hidden, exists)
    made = pictures(tokenizer, patches, output, hidden, exists)
    tall = made[0].shape[0] / made[0].shape[1]
    aspect = "equal" if tokenizer.cfg.kind in ("image", "video") else "auto"

    def paint(axes: Axes, column: int) -> None:
        axes.imshow(made[column], aspect=aspect, interpolation="nearest")
        if tokenizer.cfg.kind in _MAPS:
            axes.set_xlabel("time", fontsize=canvas.FONT - 2)
        for edge in _edges(tokenizer, made[column]):
            axes.axvline(edge, color="white", linewidth=2)

    return float(np.clip(COLUMN * tall, LOWEST, HIGHEST)), paint


def _edges(tokenizer, picture: np.ndarray) -> list[float]:
    """Where one frame of a video ends and the next begins."""
    if tokenizer.cfg.kind != "video":
        return []
    return [x - 0.5 for x in range(tokenizer.cfg.width, picture.shape[1], tokenizer.cfg.width)]


def _text_row(words, spec, patches, output, hidden, exists) -> tuple[float, object]:
    tokens = text_panel.panels(spec, words, patches, output, hidden, exists)
    gap = int(spec.tokenizer != "byte")
    lines = max(text_panel.layout(t, gap)[1] for t in tokens)

    def paint(axes: Axes, column: int) -> None:
        text_panel.draw(axes, tokens[column], gap, lines)

    return max(LINE * lines, LINE), paint


def _absent(axes: Axes, column: int) -> None:
    axes.text(0.5, 0.5, "this example lacks it" if column == 0 else "–", ha="center", va="center", fontsize=9)
