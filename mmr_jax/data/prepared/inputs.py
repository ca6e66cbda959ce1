"""From an example of a prepared data set to the input of a modality, by the modality's kind.

A reader is a function (example, spec, chance) -> (array, length). `spec` is the modality's config; `chance` float64
`[4]` in [0, 1) says where training cuts (audio, picture, frame, text), and is None in evaluation, which takes the
middle, all frames of an image, and the first text. Length 0 is an absent modality.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from mmr_jax.data.prepare.records import Example
from mmr_jax.data.text import encode

AUDIO, PICTURE, FRAME, TEXT = range(4)  # of `chance`
CHANCES = 4

Spec = Mapping[str, Any]
Input = tuple[np.ndarray, int]


def read_audio(example: Example, spec: Spec, chance: np.ndarray | None) -> Input:
    """int16 [samples]: a window of the clip, or the clip padded with zeros."""
    wave, samples = example["audio"], spec["samples"]
    spare = max(len(wave) - samples, 0)
    start = spare // 2 if chance is None else int(chance[AUDIO] * (spare + 1))
    window = wave[start : start + samples]
    out = np.zeros(samples, np.int16)
    out[: len(window)] = window
    return out, len(window)


def read_video(example: Example, spec: Spec, chance: np.ndarray | None) -> Input:
    """uint8 [frames, H, W, C], spread evenly over the stored frames."""
    return _frames(example, spec, chance, _spread(len(example["frames"]), spec["frames"])), spec["frames"]


def read_image(example: Example, spec: Spec, chance: np.ndarray | None) -> Input:
    """uint8 [H, W, C]: the middle frame; with `frames` n: one at random to train on, [n, H, W, C] to evaluate."""
    stored, frames = len(example["frames"]), spec.get("frames", 0)
    if frames and chance is None:
        return _frames(example, spec, chance, _spread(stored, frames)), 1
    pick = int(chance[FRAME] * stored) if frames else stored // 2
    return _frames(example, spec, chance, np.array([pick]))[0], 1


def read_text(example: Example, spec: Spec, chance: np.ndarray | None) -> Input:
    """int32 [length] token ids of the first text, or of one at random."""
    texts = example["text"]
    return encode(texts[0 if chance is None else int(chance[TEXT] * len(texts))], spec)


def _spread(stored: int, wanted: int) -> np.ndarray:
    return ((np.arange(wanted) + 0.5) * stored / wanted).astype(np.int64)


def _size(spec: Spec) -> tuple[int, int]:
    """Height and width of a picture as the device gets it."""
    stored = spec.get("stored", 0)
    return (stored, stored) if stored else (spec["height"], spec["width"])


def _frames(example: Example, spec: Spec, chance: np.ndarray | None, picks: np.ndarray) -> np.ndarray:
    """The chosen frames, each decoded once, cut to one window of the size that is sent to the device."""
    size = _size(spec)
    place = 0.5 if chance is None else chance[PICTURE]
    decoded = {int(p): _cut(example["frames"][p], size, place, spec["channels"]) for p in np.unique(picks)}
    return np.stack([decoded[int(p)] for p in picks])


def _cut(jpeg: bytes, size: tuple[int, int], place: float, channels: int) -> np.ndarray:
    """uint8 [height, width, channels] of a JPEG: scaled until it just covers `size`, then the window at `place` (0
    to 1) of the way along the side that is too long."""
    with Image.open(io.BytesIO(jpeg)) as image:
        image = image.convert("L" if channels == 1 else "RGB")
    scale = max(size[0] / image.height, size[1] / image.width)
    if scale != 1:
        shape = (max(size[1], round(image.width * scale)), max(size[0], round(image.height * scale)))
        image = image.resize(shape, Image.Resampling.BILINEAR)
    left, top = round(place * (image.width - size[1])), round(place * (image.height - size[0]))
    pixels = np.asarray(image.crop((left, top, left + size[1], top + size[0])))
    return pixels.reshape(*size, channels)


def blank(spec: Spec, training: bool) -> np.ndarray:
    """The zeros that stand for an absent input."""
    if spec["kind"] == "spectrogram":
        return np.zeros(spec["samples"], np.int16)
    if spec["kind"] == "text":
        return np.zeros(spec["length"], np.int32)
    several = spec["kind"] == "video" or (spec.get("frames", 0) and not training)
    return np.zeros((*((spec["frames"],) if several else ()), *_size(spec), spec["channels"]), np.uint8)


READERS = {"spectrogram": read_audio, "video": read_video, "image": read_image, "text": read_text}
STORED_AS = {"spectrogram": "audio", "video": "frames", "image": "frames", "text": "text"}  # columns of the index
