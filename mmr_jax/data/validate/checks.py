"""What is suspicious about one example, as {kind: detail}, and what it adds to the statistics."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmr_jax.data.prepare.records import Example, presence
from mmr_jax.data.prepared.inputs import UNREADABLE, reason
from mmr_jax.data.validate import facts as f

_QUIET_DB = -70.0  # of full scale
_CLIPPED = 0.01  # share of the samples
_FROZEN = 1.0  # grey levels, mean absolute difference to the first frame
_BLACK = 5.0  # grey levels, mean of a frame


def audio(pcm: np.ndarray) -> dict[str, str]:
    """int16 [n]; n = 0 is absent."""
    if not len(pcm):
        return {}
    rms = float(np.sqrt(np.mean(np.square(pcm.astype(np.float64))))) / 32768
    if pcm.min() == pcm.max():
        return {f.SILENT: f"all samples are {pcm[0]}"}
    level = 20 * np.log10(rms)
    if level < _QUIET_DB:
        return {f.SILENT: f"{level:.1f} dBFS"}
    clipped = float(((pcm == 32767) | (pcm <= -32767)).mean())
    return {f.CLIPPED: f"{clipped:.1%} of the samples"} if clipped > _CLIPPED else {}


def frames(jpegs: Sequence[bytes], times: np.ndarray, expected: int, pixels: np.ndarray) -> dict[str, str]:
    """Adds the values of all frames to `pixels` int64 [3, 256]. A single frame at time 0 is a picture, not a video."""
    found, decoded = {}, []
    picture = len(jpegs) == 1 and times.tolist() == [0.0]
    if jpegs and len(jpegs) != expected and not picture:
        found[f.FRAME_COUNT] = f"{len(jpegs)} frames, the settings say {expected}"
    for i, jpeg in enumerate(jpegs):
        try:
            image = decode(jpeg)
        except UNREADABLE as error:
            found[f.UNDECODABLE] = f"frame {i}: {reason(error)}"
            continue
        pixels += np.reshape(image.histogram(), (3, 256))
        decoded.append(np.asarray(image))
    black = sum(frame.mean() < _BLACK for frame in decoded)
    if black:
        found[f.BLACK] = f"{black} of {len(jpegs)}"
    elif _frozen(decoded):
        found[f.FROZEN] = f"{len(decoded)} frames"
    return found


def decode(jpeg: bytes) -> Image.Image:
    """An RGB picture; one of `inputs.UNREADABLE` if it is damaged."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return image.convert("RGB")


def _frozen(decoded: Sequence[np.ndarray]) -> bool:
    if len(decoded) < 2 or any(frame.shape != decoded[0].shape for frame in decoded):
        return False
    first = decoded[0].astype(np.int16)
    return all(np.abs(frame - first).mean() < _FROZEN for frame in decoded[1:])


def texts(sets: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """{text set: texts} of an example."""
    empty = sorted(name for name, found in sets.items() if any(not text.strip() for text in found))
    return {f.EMPTY_TEXT: ", ".join(empty)} if empty else {}


def text_length(text: str) -> tuple[int, int]:
    """Words and bytes, as the tokenizers "word" and "byte" count them."""
    return len(re.findall(r"\w+", text)), len(text.encode())


def against_index(example: Example, line: Mapping[str, Any]) -> dict[str, str]:
    """`line`: the index's id, source, present bool [3], duration and labels {set: classes int [k]} of this record."""
    same = {name: example[name] == str(line[name]) for name in ("id", "source")}
    same["presence"] = presence(example) == line["present"].tolist()
    same["duration"] = np.float32(example["duration"]) == line["duration"]
    for name, (classes, _, _) in sorted(example["labels"].items()):
        same[f"labels of {name}"] = classes.tolist() == line["labels"][name].tolist()
    differ = [name for name, equal in same.items() if not equal]
    return {f.DISAGREE: ", ".join(differ)} if differ else {}


def digest(example: Example) -> int | None:
    """64 bits of audio and frames; None if there is neither."""
    if not len(example["audio"]) and not example["frames"]:
        return None
    parts = hashlib.blake2b(digest_size=8)
    for data in (example["audio"].astype("<i2").tobytes(), *example["frames"]):
        parts.update(len(data).to_bytes(8, "little"))
        parts.update(data)
    return int.from_bytes(parts.digest(), "little")
