"""mmr predict: class probabilities from whatever modalities are given.

mmr predict --workdir=DIR --input=audio=clip.wav --input=image=digit.png --input=text="a red square"
"""

import warnings
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import flags
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmr_jax.cli import options
from mmr_jax.errors import UserError, nearest
from mmr_jax.prediction import Prediction, Predictor, load

INPUT = flags.DEFINE_multi_string("input", [], "modality=file (.wav, .png, .jpg, .npy) or modality=text; repeat it")
SHOWN = 5


def run() -> None:
    """Print the most probable classes."""
    predictor = load(options.require(options.WORKDIR.value, "workdir", "runs/quickstart"))
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        found = predictor(_inputs(INPUT.value, predictor.modalities))
    for note in notes:
        print(f"note: {note.message}")
    _show(found, predictor)


def _inputs(arguments: list[str], modalities: Mapping[str, Mapping]) -> dict[str, object]:
    """{modality: array or text} from the values of --input."""
    found = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not value:
            raise UserError(f"--input={argument}: write --input=modality=file, for example --input=audio=clip.wav")
        if name not in modalities:
            raise UserError(f"--input={argument}: unknown modality {name!r}{nearest(name, modalities)}")
        if name in found:
            raise UserError(f"--input={argument}: {name} is given twice")
        found[name] = _read(value, modalities[name])
    return found


def _read(value: str, spec: Mapping) -> object:
    path = Path(value)
    readers = {".npy": _numpy, ".wav": _wav, ".png": _picture, ".jpg": _picture, ".jpeg": _picture}
    if spec["kind"] == "text" and path.suffix != ".npy":
        return value
    if path.suffix.lower() not in readers:
        raise UserError(f"{value!r}: cannot read this kind of file; give one of {', '.join(readers)}")
    if not path.is_file():
        raise UserError(f"{value!r} does not exist")
    try:
        return readers[path.suffix.lower()](path, spec)
    except (OSError, EOFError, ValueError, wave.Error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{value!r} cannot be read: {error}") from None


def _numpy(path: Path, spec: Mapping) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _wav(path: Path, spec: Mapping) -> np.ndarray:
    """16-bit PCM as int16 [n]; two channels become their mean."""
    if spec["kind"] != "spectrogram":
        raise UserError(f"{path} is sound; this modality takes {spec['kind']}")
    with wave.open(str(path)) as file:
        rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
        frames = file.readframes(file.getnframes())
    if rate != spec["sample_rate"]:
        raise UserError(f"{path} has {rate} samples per second, the model takes {spec['sample_rate']}: resample it")
    if width != 2 or channels > 2:
        raise UserError(f"{path} has {channels} channels of {8 * width} bits; convert it to 16 bits, mono or stereo")
    samples = np.frombuffer(frames, "<i2").reshape(-1, channels)
    return np.rint(samples.mean(axis=1)).astype(np.int16)


def _picture(path: Path, spec: Mapping) -> np.ndarray:
    """uint8 [H, W, C], resized if its size is not the model's."""
    from PIL import Image

    if spec["kind"] != "image" or spec["shape"][-1] not in (1, 3):
        raise UserError(f"{path} is a picture; this modality takes {spec['kind']} {spec['shape']}")
    height, width, channels = spec["shape"]
    with Image.open(path) as opened:
        picture = opened.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        before = f"{picture.size[0]} x {picture.size[1]}"
        warnings.warn(f"{path} was resized from {before} to {width} x {height}", stacklevel=2)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.uint8).reshape(height, width, channels)


def _show(found: Prediction, predictor: Predictor) -> None:
    """A table of the top classes per example."""
    console, card = Console(highlight=False), predictor.card
    absent = [m for m in predictor.modalities if m not in found.used]
    told = f"used: {', '.join(found.used)}" + (f"; absent: {', '.join(absent)}" if absent else "")
    console.print(f"{card['method']} trained on {card['train_modalities']}; {told}", markup=False)
    for example in range(len(found.probabilities)):
        table = Table("class", "probability")
        for name, probability in found.ranked(example)[:SHOWN]:
            table.add_row(escape(name), f"{probability:.3f}")
        console.print(table)
