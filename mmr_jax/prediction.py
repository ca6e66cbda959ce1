"""Predictions from an exported model, for whatever modalities are at hand: the engineer whose sensor failed.

Needs numpy, jax and the files that `mmr_jax.export` wrote; the model itself is not built.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmr_jax.errors import UserError
from mmr_jax.prediction_inputs import make_batch

FORMAT = 1  # of the files of an export
POINTER = "export.json"  # in a workdir: where its newest export is
LARGEST_BATCH = 256


@dataclass(frozen=True)
class Prediction:
    """probabilities float32 [B, C] over `classes`, and the modalities that at least one example had."""

    probabilities: np.ndarray
    classes: tuple[str, ...]
    used: tuple[str, ...]

    @property
    def top(self) -> list[tuple[str, float]]:
        """All classes of the first example as (name, probability), the most probable first."""
        return self.ranked(0)

    def ranked(self, example: int) -> list[tuple[str, float]]:
        """As `top`, of any example of the batch."""
        row = self.probabilities[example]
        return [(self.classes[c], float(row[c])) for c in np.argsort(-row, kind="stable")]


class Predictor:
    """An exported model, ready to call. `card` is its model.json: modalities, classes, method, metric."""

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self.card = _read_card(self.directory)
        self.classes = tuple(self.card["classes"])
        self.modalities = {m: _with_vocabulary(spec, self.directory) for m, spec in self.card["modalities"].items()}
        self._program = None

    def __call__(self, inputs: Mapping[str, object]) -> Prediction:
        """Class probabilities for one example or a batch of any size.

        `inputs` maps modality names to: audio as int16 or float in -1..1 [n] at the model's rate, pictures uint8
        [H, W, C], clips uint8 [n, H, W, C], text as a string or int tokens, features float [n, D]; or a batch of
        such with a leading axis; or a list, with None for examples that lack the modality. A modality that is left
        out or None is absent. Shorter input is padded, longer input is cut with a warning. UserError for anything
        else.
        """
        inputs, length, present = make_batch(inputs, self.modalities)
        size = len(next(iter(present.values())))
        rows = [self._run(*_rows((inputs, length, present), i)) for i in range(0, size, LARGEST_BATCH)]
        used = tuple(m for m in sorted(present) if present[m].any())
        return Prediction(np.concatenate(rows), self.classes, used)

    def _run(self, *batch: dict) -> np.ndarray:
        """One call of the program; sizes are rounded up to powers of two, so that few of them are compiled."""
        size = len(next(iter(batch[2].values())))
        padded = 1 << (size - 1).bit_length()
        batch = [{m: _grown(a, padded) for m, a in part.items()} for part in batch]
        return np.asarray(self._loaded(*batch))[:size]

    def _loaded(self, *batch):
        if self._program is None:
            self._program = _read_program(self.directory)
        return self._program(*batch)


def load(path: str | Path) -> Predictor:
    """The predictor of an export directory, or of a study's workdir (the export that its newest run made)."""
    path = Path(path)
    pointer = path / POINTER
    if pointer.is_file():
        path = path / json.loads(pointer.read_text())["directory"]
    return Predictor(path)


def predict(path: str | Path, inputs: Mapping[str, object]) -> Prediction:
    """`load(path)(inputs)`; a model that was loaded once is kept, until its files change."""
    card = load(path).directory / "model.json"
    return _kept(card.parent, card.stat().st_mtime_ns)(inputs)


@functools.lru_cache(maxsize=4)
def _kept(directory: Path, changed: int) -> Predictor:
    return Predictor(directory)


def _rows(parts, start: int) -> list[dict]:
    return [{m: a[start : start + LARGEST_BATCH] for m, a in part.items()} for part in parts]


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    """Zeros appended to the leading axis; for `present` this means absent."""
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def _with_vocabulary(spec: dict, directory: Path) -> dict:
    """A modality's card with the place of the vocabulary that was exported with it."""
    return {**spec, "vocab": str(directory / spec["vocab"])} if spec.get("vocab") else spec


def _read_card(directory: Path) -> dict:
    path = directory / "model.json"
    if not path.is_file():
        raise UserError(f"{directory} holds no exported model; finish mmr run there, or give a folder with model.json")
    card = json.loads(path.read_text())
    if card.get("format") != FORMAT:
        raise UserError(
            f"{path} is of format {card.get('format')}, this version reads {FORMAT}: export the model again"
        )
    return card


def _read_program(directory: Path):
    """(inputs, length, present) -> probabilities, on jax's default device."""
    import jax
    from jax import export

    try:
        program = export.deserialize(bytearray((directory / "model.bin").read_bytes()))
        with np.load(directory / "params.npz") as stored:
            params = jax.device_put({name: stored[name] for name in stored.files})
    except Exception as error:  # of many kinds: absent, truncated, written by a jax that is too new or too old
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{directory}: the exported model cannot be read ({reason}); export it again") from error
    return functools.partial(jax.jit(program.call), params)
