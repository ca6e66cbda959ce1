"""avdigits: spoken digits (FSDD, 8 kHz) with handwritten digits (MNIST); real audio and image, ten classes.

A clip and an image of the same digit make a pair; 3000 pairs, one per clip, no image twice. The word of the
digit is never an input. Splits:

    official      test: clips 0-4 (FSDD's own test set) with MNIST test images; val: 5-9; train: 10-49
    talker_out    test: all clips of one talker; val: 5-9 and train: 10-49 of the other five

A talker's clips 0-4 stay out of training in both, because their images belong to `mnist_test`: MNIST's
10,000 test images, with audio absent.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmr_jax.data import avdigits_raw as raw
from mmr_jax.data.source import Cached, Dataset, Record, Source, complete
from mmr_jax.errors import UserError, nearest
from mmr_jax.seeds import fold_seed

_KINDS = {"audio": "spectrogram", "image": "image"}
_IMAGE = (28, 28, 1)
_ORIGIN = "Free Spoken Digit Dataset (Z. Jackson and others, CC BY-SA 4.0) and MNIST (Y. LeCun, C. Cortes, C. Burges)."
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ORDER = ("unlabelled", "labelled", "val", "test")


def default_config() -> dict[str, Any]:
    """The data configuration with its defaults."""
    return {
        "name": "avdigits",
        "seed": 0,  # of the choice of labelled pairs
        "root": "",  # holds fsdd/ and mnist/; empty: $MMR_DATA, else ../shared/data beside the repository
        "download": False,  # fetch the public archives into the cache instead
        "cache_dir": "",  # prepared files; empty: $MMR_CACHE, else ~/.cache/mmr_jax
        "split": "official",  # or talker_out
        "talker": "theo",  # whom talker_out leaves out
        "labelled": 300,  # labelled pairs, the same number of each digit; the rest of train is unlabelled
    }


def load(data_config: Mapping[str, Any], modalities_config: Mapping[str, Any]) -> Dataset:
    """The data set, prepared on first use; `modalities_config` may have audio, image or both."""
    config = complete(data_config, default_config())
    _check(config, modalities_config)
    from mmr_jax.data.avdigits_builder import PreparedSplit, prepare  # the import of TFDS is slow

    folder = prepare(_raw_root(config), _cache(config))
    pairs = [pair for split in ("train", "val", "test") for pair in _all(PreparedSplit(folder, split))]
    chosen = _split(pairs, config)
    chosen["labelled"], chosen["unlabelled"] = _label_some(chosen.pop("train"), config)
    splits: dict[str, Source] = {s: Cached(_Pairs(chosen[s], modalities_config)) for s in _ORDER}
    if "image" in modalities_config:
        splits["mnist_test"] = Cached(_Pairs(PreparedSplit(folder, "mnist_test"), modalities_config))
    return Dataset(
        name="avdigits",
        modalities=tuple(modalities_config),
        splits=splits,
        class_names=_DIGITS,
        notes=_notes(config, splits, chosen, modalities_config),
        fingerprint=folder.name,  # with a digest of the raw files
    )


class _Pairs:
    """Records of the prepared `examples`, audio cut or padded to the configured number of samples."""

    def __init__(self, examples: Sequence[dict[str, Any]], modalities: Mapping[str, Mapping[str, Any]]):
        self._examples = examples
        self._modalities = modalities

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        example = self._examples[index]
        record: Record = {"inputs": {}, "present": {}, "length": {}, "label": example["label"], "id": index}
        for m, spec in self._modalities.items():
            array, length = _audio(example, spec["samples"]) if m == "audio" else (example["image"], 1)
            record["inputs"][m] = array
            record["length"][m] = length
            record["present"][m] = length > 0
        return record

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels and ids, without the media where the examples are in memory."""
        return np.array([e["label"] for e in self._examples], np.int32), np.arange(len(self), dtype=np.int32)


def _audio(example: dict[str, Any], samples: int) -> tuple[np.ndarray, int]:
    wave = example["audio"][:samples]
    padded = np.zeros(samples, np.int16)
    padded[: len(wave)] = wave
    return padded, len(wave)


def _all(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [examples[i] for i in range(len(examples))]


def _split(pairs: list[dict[str, Any]], config: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Pairs by "train", "val" and "test"."""
    left_out = config["talker"] if config["split"] == "talker_out" else None
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for pair in pairs:
        part = raw.split_of(pair["index"])
        if pair["speaker"] == left_out:
            parts["test"].append(pair)
        elif part != "test" or left_out is None:
            parts[part].append(pair)
    return parts


def _label_some(train: list[dict[str, Any]], config: Mapping[str, Any]) -> tuple[list, list]:
    """The labelled pairs, balanced over digits, and the unlabelled rest (all of them if all are labelled)."""
    wanted = config["labelled"]
    if not 10 <= wanted <= len(train):
        raise UserError(
            f"data.labelled is {wanted}; allowed are 10 (one of each digit) to {len(train)} (all train pairs)"
        )
    if wanted == len(train):
        return train, train
    rank = sorted(train, key=lambda pair: fold_seed(config["seed"], "labelled", pair["id"]))
    by_digit = [[pair["id"] for pair in rank if pair["label"] == digit] for digit in range(10)]
    shares = [wanted // 10 + (digit < wanted % 10) for digit in range(10)]
    ids = {i for found, share in zip(by_digit, shares, strict=True) for i in found[:share]}
    return [p for p in train if p["id"] in ids], [p for p in train if p["id"] not in ids]


def _raw_root(config: Mapping[str, Any]) -> Path:
    if config["download"]:
        from mmr_jax.data.avdigits_download import download

        root = _cache(config) / "downloads"
        download(root)
        return root
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(config["root"] or os.environ.get("MMR_DATA") or beside).expanduser().absolute()


def _cache(config: Mapping[str, Any]) -> Path:
    return Path(config["cache_dir"] or os.environ.get("MMR_CACHE") or "~/.cache/mmr_jax").expanduser().absolute()


def _notes(
    config: Mapping[str, Any],
    splits: Mapping[str, Source],
    chosen: Mapping[str, list[dict[str, Any]]],
    modalities: Mapping[str, Any],
) -> list[str]:
    rule = "official split" if config["split"] == "official" else f"talker {config['talker']} left out"
    notes = [f"{_ORIGIN} {rule}: " + ", ".join(f"{s} {len(v)}" for s, v in splits.items()) + "."]
    if "audio" in modalities:
        samples = modalities["audio"]["samples"]
        clips = [pair for s in _ORDER for pair in chosen[s]]
        cut = sum(len(pair["audio"]) > samples for pair in clips)
        notes.append(f"Audio: {samples / raw.RATE:.2f} s; {cut} of {len(clips)} clips are longer and cut.")
    return notes


def _check(config: Mapping[str, Any], modalities: Mapping[str, Mapping[str, Any]]) -> None:
    if config["download"] and config["root"]:
        raise UserError("data.download and data.root exclude each other: the download goes to data.cache_dir")
    if config["split"] not in ("official", "talker_out"):
        hint = nearest(config["split"], ("official", "talker_out"))
        raise UserError(f"data.split is {config['split']!r}, which is no split of avdigits{hint}")
    if config["talker"] not in raw.SPEAKERS:
        hint = nearest(config["talker"], raw.SPEAKERS)
        raise UserError(f"data.talker is {config['talker']!r}, who is no talker of avdigits{hint}")
    if not modalities:
        raise UserError("no modalities are configured: avdigits has audio and image")
    for m, spec in modalities.items():
        if m not in _KINDS:
            raise UserError(f"avdigits has no modality {m!r}{nearest(m, _KINDS)}")
        if spec["kind"] != _KINDS[m]:
            raise UserError(f"modality {m!r} of avdigits is of kind {_KINDS[m]!r}, not {spec['kind']!r}")
    _check_shapes(modalities)


def _check_shapes(modalities: Mapping[str, Mapping[str, Any]]) -> None:
    if "audio" in modalities and modalities["audio"]["sample_rate"] != raw.RATE:
        rate = modalities["audio"]["sample_rate"]
        raise UserError(f"modalities.audio.sample_rate is {rate}; the recordings of avdigits have {raw.RATE}")
    if "image" in modalities:
        shape = tuple(modalities["image"][key] for key in ("height", "width", "channels"))
        if shape != _IMAGE:
            raise UserError(f"modalities.image is {shape} (height, width, channels); avdigits has {_IMAGE}")
        if modalities["image"].get("frames", 0):
            raise UserError("modalities.image.frames is set; an image of avdigits is one frame: leave it at 0")
