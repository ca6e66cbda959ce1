"""From an example of a prepared data set to the input of a modality, by the modality's kind.

A reader is a function (example, spec, chance, out) -> length that writes into `out`, zeros of the input's shape and
dtype: a row of the batch, so that nothing is copied twice. `spec` is the modality's config; `chance` float64 `[4]` in
[0, 1) says where training cuts (audio, picture, frame, text), and is None in evaluation, which takes the middle, all
frames of an image, and the first text. Length 0 is an absent modality.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from mmr_jax.data.prepare.records import Example
from mmr_jax.data.text import encode
from mmr_jax.models.crop import sent_size

AUDIO, PICTURE, FRAME, TEXT = range(4)  # of `chance`
CHANCES = 4
UNREADABLE = (OSError, ValueError, SyntaxError)  # what Pillow raises for a damaged picture

Spec = Mapping[str, Any]
Chance = np.ndarray | None


def read_audio(example: Example, spec: Spec, chance: Chance, out: np.ndarray) -> int:
    """int16 [samples]: a window of the clip, or the clip padded with zeros."""
    wave, samples = example["audio"], spec["samples"]
    spare = max(len(wave) - samples, 0)
    start = spare // 2 if chance is None else int(chance[AUDIO] * (spare + 1))
    window = wave[start : start + samples]
    out[: len(window)] = window
    return len(window)


def read_video(example: Example, spec: Spec, chance: Chance, out: np.ndarray) -> int:
    """uint8 [frames, H, W, C], spread evenly over the stored frames."""
    _frames(example, chance, spread(len(example["frames"]), spec["frames"]), out)
    return spec["frames"]


def read_image(example: Example, spec: Spec, chance: Chance, out: np.ndarray) -> int:
    """uint8 [H, W, C]: the middle frame; with `frames` n: one at random to train on, [n, H, W, C] to evaluate."""
    stored, frames = len(example["frames"]), spec.get("frames", 0)
    if frames and chance is None:
        _frames(example, chance, spread(stored, frames), out)
    else:
        pick = int(chance[FRAME] * stored) if frames else stored // 2
        _frames(example, chance, np.array([pick]), out[None])
    return 1


def read_text(example: Example, spec: Spec, chance: Chance, out: np.ndarray) -> int:
    """int32 [length] token ids of the first text, or of one at random."""
    texts = example["text"]
    out[:], length = encode(texts[0 if chance is None else int(chance[TEXT] * len(texts))], spec)
    return length


def spread(stored: int, wanted: int) -> np.ndarray:
    """int64 [wanted]: which of `stored` frames lie in the middles of equal parts."""
    return ((np.arange(wanted) + 0.5) * stored / wanted).astype(np.int64)


def _frames(example: Example, chance: Chance, picks: np.ndarray, out: np.ndarray) -> None:
    """The chosen frames, ascending, each decoded once, cut to one window of the size of `out` [picks, H, W, C]."""
    place = 0.5 if chance is None else chance[PICTURE]
    for i, pick in enumerate(picks):
        if i and pick == picks[i - 1]:
            out[i] = out[i - 1]
        else:
            _cut(example["frames"][pick], place, out[i])


def _cut(jpeg: bytes, place: float, out: np.ndarray) -> None:
    """A JPEG into `out` uint8 [height, width, channels]: scaled until it just covers that, then the window at `place`
    (0 to 1) of the way along the side that is too long."""
    height, width, channels = out.shape
    mode = "L" if channels == 1 else "RGB"
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        image.load()  # closes the file; `convert` would copy even where there is nothing to convert
        whole = image if image.mode == mode else image.convert(mode)
    scale = max(height / whole.height, width / whole.width)
    tall, wide = max(height, round(whole.height * scale)), max(width, round(whole.width * scale))
    left, top = round(place * (wide - width)), round(place * (tall - height))
    if scale == 1:
        window = whole.crop((left, top, left + width, top + height))
    else:  # only the window of the scaled picture is computed; pixels beside it count at its edge all the same
        x, y = whole.width / wide, whole.height / tall
        right, bottom = min((left + width) * x, whole.width), min((top + height) * y, whole.height)
        window = whole.resize((width, height), Image.Resampling.BILINEAR, box=(left * x, top * y, right, bottom))
    out[...] = np.frombuffer(window.tobytes(), np.uint8).reshape(out.shape)


def reason(error: Exception) -> str:
    """What an error says, in one line, without the address of what was read, which Pillow adds."""
    return " ".join(re.sub(r" ?<_io\.\S+ object at \S+>", "", str(error)).split())


def shape_of(spec: Spec, training: bool) -> tuple[tuple[int, ...], type]:
    """Shape and dtype of an input."""
    if spec["kind"] == "spectrogram":
        return (spec["samples"],), np.int16
    if spec["kind"] == "text":
        return (spec["length"],), np.int32
    several = spec["kind"] == "video" or (spec.get("frames", 0) and not training)
    return (*((spec["frames"],) if several else ()), *sent_size(spec), spec["channels"]), np.uint8


READERS = {"spectrogram": read_audio, "video": read_video, "image": read_image, "text": read_text}
STORED_AS = {"spectrogram": "audio", "video": "frames", "image": "frames", "text": "text"}  # columns of the index
