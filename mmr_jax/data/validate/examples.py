"""Pictures of examples: some frames, the log-mel, texts and labels."""

import textwrap
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mmr_jax.data.prepare.records import Example
from mmr_jax.data.prepare.workers import Pool
from mmr_jax.data.prepared.folder import Folder
from mmr_jax.data.prepared.inputs import UNREADABLE, spread
from mmr_jax.data.validate import checks, sound
from mmr_jax.data.validate import facts as f
from mmr_jax.data.validate.read import Job, opened, opened_split
from mmr_jax.data.validate.reading import Chosen, look
from mmr_jax.robustness.report import canvas
from mmr_jax.robustness.report.blocks import Picture

_WIDTH, _LINE, _MEL = 6.2, 0.19, 1.4  # inches: of a picture, of a line of text, of the log-mel
_TALLEST = 2.6  # inches of the frames
_FRAMES, _COLUMNS, _LINES = 8, 2000, 9  # at most: frames, columns of the log-mel, lines of text
_LETTERS = 94  # in a line
_GAP = 0.02  # between frames, of their width
_NORMAL = 6  # examples of the whole set
_PICTURED = (f.UNDECODABLE, f.FRAME_COUNT, f.SILENT, f.CLIPPED, f.FROZEN, f.BLACK, f.SAME_CONTENT, f.SAME_ACROSS)

Pictures = dict[str, list[Picture]]  # "examples" and "suspicious"


def draw_all(pool: Pool, job: Job, chosen: Chosen, suspicious: Mapping[str, Any]) -> Pictures:
    """The first records read of every split, and the first case of everything suspicious that can be seen."""
    each = max(1, _NORMAL // len(chosen))
    wanted = [("examples", name, int(row), "") for name, (_, rows) in chosen.items() for row in rows[:each]]
    for kind in [kind for kind in _PICTURED if kind in suspicious]:
        case = suspicious[kind]["first"][0]
        wanted.append(("suspicious", case["split"], case["row"], f"{kind}: {case['detail']}"))
    drawn: dict[int, Picture | None] = {}
    tasks = [(draw, (job, split, row, remark, i)) for i, (_, split, row, remark) in enumerate(wanted)]
    pool.run(tasks, lambda task, picture: drawn.update({task[1][-1]: picture}) or (), look)
    made: Pictures = {"examples": [], "suspicious": []}
    for i, (section, *_) in enumerate(wanted):
        if drawn.get(i):
            made[section].append(drawn[i])
    return made


def draw(job: Job, split: str, row: int, remark: str, number: int) -> Picture | None:
    """The picture of a record, or None if it cannot be read."""
    sound.on_cpu()
    try:
        example = opened_split(job.folder, split)[row]
    except ValueError:
        return None
    words = _words(example, opened(job.folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks some scripts; the picture's description has them
        png = _draw(job, f"{example['id']} ({split}, {example['duration']:.2f} s)", remark, example, words)
    name = f"example-{number + 1}.png"
    return Picture(name, example["id"], png, "; ".join(filter(None, [example["id"], remark, *words])))


def _words(example: Example, folder: Folder) -> list[str]:
    """A line per text set, and one of all labels."""
    texts = {name: " | ".join(example["texts"][name]) for name in folder.info["texts"]}
    labels = {
        name: ", ".join(folder.classes[name][c] for c in example["labels"][name][0])
        for name in folder.info["label_sets"]
    }
    lines = [f"{name}: {text}" for name, text in texts.items() if text]
    short = [f"{name}: {text}" for name, text in labels.items() if text]
    return [*lines, "   ".join(short)] if short else lines


def _draw(job: Job, title: str, remark: str, example: Example, words: list[str]) -> bytes:
    """Only of what the example has."""
    lines = [canvas.label(line, longest=_LETTERS) for text in words for line in textwrap.wrap(text, _LETTERS)][:_LINES]
    parts = []
    if example["frames"]:
        strip = _strip(example["frames"])
        height = min(_WIDTH * strip.shape[0] / strip.shape[1], _TALLEST)
        parts.append((height, lambda axes: axes.imshow(strip)))
    if len(example["audio"]):
        parts.append((_MEL, lambda axes: _paint_mel(axes, job, example["audio"])))
    if lines:
        parts.append((_LINE * len(lines), lambda axes: _paint_lines(axes, lines)))
    parts = parts or [(_LINE, lambda axes: _paint_lines(axes, ["nothing is present"]))]
    heights = [height for height, _ in parts]
    drawn = canvas.figure(sum(heights) + 0.35 * len(heights) + 0.3 + 0.2 * bool(remark), _WIDTH)
    heading = canvas.label(title, longest=60) + (f"\n{canvas.label(remark, longest=70)}" if remark else "")
    drawn.suptitle(heading, fontsize=canvas.FONT)
    grid = drawn.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (_, paint) in zip(grid, parts, strict=True):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        paint(axes)
    return canvas.png(drawn)


def _strip(jpegs: list[bytes]) -> np.ndarray:
    """uint8 [height, width, 3]: frames side by side; one that does not decode is grey."""
    frames = [_frame(jpegs[i]) for i in spread(len(jpegs), min(len(jpegs), _FRAMES))]
    height = max((len(frame) for frame in frames if frame is not None), default=36)
    width = max((frame.shape[1] for frame in frames if frame is not None), default=64)
    parts = []
    for frame in frames:
        place = np.full((height, width, 3), 255 if frame is not None else 128, np.uint8)
        if frame is not None:
            place[: len(frame), : frame.shape[1]] = frame
        parts += [place, np.full((height, max(1, round(_GAP * width)), 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def _frame(jpeg: bytes) -> np.ndarray | None:
    try:
        return np.asarray(checks.decode(jpeg))
    except UNREADABLE:
        return None


def _paint_mel(axes: Axes, job: Job, pcm: np.ndarray) -> None:
    """Time to the right, low frequencies at the bottom."""
    blocks = list(sound.log_mel_blocks(pcm, job.rate, job.mels, job.window))
    if not blocks:
        axes.text(0.5, 0.5, "shorter than a window", ha="center", va="center")
        return
    mel = np.concatenate(blocks)
    thinned = mel[:: -(-len(mel) // _COLUMNS)].T
    seconds = len(pcm) / job.rate
    low, high = np.quantile(thinned, (0.01, 1))
    axes.imshow(
        thinned, aspect="auto", origin="lower", cmap="magma", vmin=low, vmax=high, extent=(0, seconds, 0, job.mels)
    )
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.tick_params(labelsize=canvas.FONT - 3)
    axes.set_xlabel("seconds", fontsize=canvas.FONT - 2)
    axes.set_ylabel(f"{job.mels} mels", fontsize=canvas.FONT - 2)


def _paint_lines(axes: Axes, lines: list[str]) -> None:
    axes.set(xlim=(0, 1), ylim=(len(lines), 0))
    for i, line in enumerate(lines):
        axes.text(0, i + 0.5, line, fontsize=canvas.FONT - 2, va="center")
