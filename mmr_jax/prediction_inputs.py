"""From what a caller has (arrays of any length, text, lists with gaps) to the batch that an exported program takes."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from mmr_jax.data.text import encode
from mmr_jax.errors import UserError, nearest

Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]


def make_batch(given: Mapping[str, object], modalities: Mapping[str, Mapping]) -> Batch:
    """{m: one example, a batch, a list with None for the examples that lack m, or None} -> (inputs, length, present).

    `modalities` are those of an export's model.json. Inputs [B, ...] are padded with zeros; length int32 [B]
    counts samples, frames or tokens, 0 where absent; present bool [B]. What does not fit is a UserError.
    """
    for name in given:
        if name not in modalities:
            raise UserError(f"unknown modality {name!r}{nearest(name, modalities)}")
    examples = {m: _examples(m, value, modalities[m]) for m, value in given.items() if value is not None}
    if not examples:
        raise UserError(f"no modality is given; give at least one of {', '.join(sorted(modalities))}")
    size = _common_size(examples)
    for row in range(size):
        if all(column[row] is None for column in examples.values()):
            raise UserError(f"example {row} has no modality at all; give at least one")
    columns = {m: _column(m, examples.get(m, [None] * size), spec) for m, spec in modalities.items()}
    return tuple({m: column[i] for m, column in columns.items()} for i in range(3))


def _common_size(examples: Mapping[str, Sequence]) -> int:
    (first, count), *rest = [(m, len(column)) for m, column in examples.items()]
    for name, other in rest:
        if other != count:
            raise UserError(f"batches of unequal size: {first} has {count} examples, {name} has {other}")
    if not count:
        raise UserError(f"{first}: the batch is empty")
    return count


def _examples(name: str, value: object, spec: Mapping) -> list:
    """One entry per example: a string, an array without batch axis, or None."""
    if isinstance(value, str):
        return [value]
    array = _as_array(value)
    if array is None:
        return [None if v is None else v if isinstance(v, str) else _one(name, v, spec) for v in value]
    array, rank = _with_channel(array, spec), len(spec["shape"])
    if array.ndim not in (rank, rank + 1):
        raise UserError(f"{name}: {_is(array)}; expected {_wanted(spec)}, or a batch of such with a leading axis")
    return [array] if array.ndim == rank else list(array)


def _as_array(value: object) -> np.ndarray | None:
    """The value as one array of numbers; None if it is a list of examples that do not stack."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return None if array.dtype.kind in "OUS" and isinstance(value, list | tuple) else array


def _one(name: str, value: object, spec: Mapping) -> np.ndarray:
    array = _as_array(value)
    array = array if array is None else _with_channel(array, spec)
    if array is None or array.ndim != len(spec["shape"]):
        what = "a ragged list" if array is None else _is(array)
        raise UserError(f"{name}: an example is {what}; expected {_wanted(spec)}")
    return array


def _with_channel(array: np.ndarray, spec: Mapping) -> np.ndarray:
    """Grey pictures may leave out their channel axis."""
    grey = spec["kind"] in ("image", "video") and spec["shape"][-1] == 1
    return array[..., None] if grey and array.shape[-1:] != (1,) else array


def _is(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _wanted(spec: Mapping) -> str:
    """What an example of a modality looks like."""
    fixed = ", ".join(map(str, spec["shape"][1:]))
    several = f"[n{', ' if fixed else ''}{fixed}] with n up to {spec['shape'][0]}"
    kinds = {
        "spectrogram": f"int16 or float samples {several}",
        "image": f"uint8 pixels {spec['shape']}",
        "video": f"uint8 frames {several}",
        "text": f"a string, or integer tokens {several}",
        "features": f"float features {several}",
    }
    return kinds[spec["kind"]]


def _column(name: str, examples: Sequence, spec: Mapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(inputs [B, ...], length int32 [B], present bool [B]) of one modality."""
    inputs = np.zeros((len(examples), *spec["shape"]), spec["dtype"])
    length = np.zeros(len(examples), np.int32)
    for row, example in enumerate(examples):
        if example is not None:
            array = _CONVERT[spec["kind"]](name, example, spec)
            length[row] = 1 if spec["kind"] == "image" else len(array)
            inputs[row, : len(array)] = array
    return inputs, length, np.array([example is not None for example in examples])


def _checked(name: str, example: object, spec: Mapping, kinds: str) -> np.ndarray:
    """The example if its dtype is of one of numpy's `kinds` and its fixed axes agree, cut to the model's length."""
    array, full = np.asarray(example), spec["shape"][0]
    if array.dtype.kind not in kinds or list(array.shape[1:]) != spec["shape"][1:] or not len(array):
        raise UserError(f"{name}: {_is(array)}; expected {_wanted(spec)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{name}: holds NaN or infinity ({np.sum(~np.isfinite(array))} of {array.size} values)")
    if len(array) > full and spec["kind"] != "image":
        warnings.warn(f"{name}: cut from {len(array)} to {full}, the longest that the model takes", stacklevel=2)
        array = array[:full]
    return array


def _wave(name: str, example: object, spec: Mapping) -> np.ndarray:
    array = _checked(name, example, spec, "fi")
    if len(array) < spec["window"]:
        raise UserError(f"{name}: {len(array)} samples are less than one window of {spec['window']}; arrays are [n]")
    if array.dtype.kind == "f":
        peak = float(np.abs(array).max())
        if peak > 1:
            raise UserError(f"{name}: float samples reach {peak:.4g}; scale or clip them to -1..1, or give int16")
        return np.clip(np.rint(array * 32768.0), -32768, 32767).astype(np.int16)
    if array.dtype != np.int16:
        raise UserError(f"{name}: {_is(array)}; expected {_wanted(spec)}")
    return array


def _pixels(name: str, example: object, spec: Mapping) -> np.ndarray:
    array = _checked(name, example, spec, "u")
    if array.dtype != np.uint8 or (spec["kind"] == "image" and list(array.shape) != spec["shape"]):
        raise UserError(f"{name}: {_is(array)}; expected {_wanted(spec)}")
    return array


def _tokens(name: str, example: object, spec: Mapping) -> np.ndarray:
    """Text by the model's tokenizer; token ids without their padding."""
    full = spec["shape"][0]
    if isinstance(example, str):
        tokens, count = encode(example, {**spec, "length": full})
        if encode(example, {**spec, "length": full + 1})[1] > full:
            warnings.warn(f"{name}: the text is longer than {full} tokens and was cut", stacklevel=2)
        return tokens[:count]
    array = np.asarray(example)
    if array.dtype.kind in "iu" and array.size and (array.min() < 0 or array.max() >= spec["vocab_size"]):
        raise UserError(
            f"{name}: token ids reach from {array.min()} to {array.max()}; known are 0..{spec['vocab_size'] - 1}"
        )
    return _checked(name, np.trim_zeros(array, "b"), spec, "iu")


def _features(name: str, example: object, spec: Mapping) -> np.ndarray:
    return _checked(name, example, spec, "f")


_CONVERT = {"spectrogram": _wave, "image": _pixels, "video": _pixels, "text": _tokens, "features": _features}
