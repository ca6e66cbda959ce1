"""The synthetic world: an unlimited, seeded generator of aligned audio, video and captions.

An example has a class and three hidden factors that all modalities share beyond it: tempo, direction, level.
A class is a pair (form, tint), as 24 = 6 forms x 4 tints:

    factor      audio                          video                      caption
    form        pitch                          shape                      the class's name, or a hint that
    tint        timbre                         colour                     several classes share, or nothing
    tempo       rate of the tremolo            speed                      a word, sometimes left out
    direction   glide up, level, down          motion up, across, down    a word, sometimes left out
    level       loudness over the noise        size                       a word, sometimes left out

Record i is a pure function of (seed, split, i); each modality draws from a stream of its own, so a knob of
one leaves the others untouched.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmr_jax.data import synthetic_media, synthetic_text
from mmr_jax.data.source import Cached, Dataset, Record, Source, complete
from mmr_jax.data.synthetic_media import Factors
from mmr_jax.errors import UserError

FORMS = 6
Renderer = Callable[[np.random.Generator, Factors], tuple[np.ndarray, int]]  # -> array, valid length
MAX_CLASSES = FORMS * len(synthetic_media.TIMBRES)


def default_config() -> dict[str, Any]:
    """The data configuration with its defaults."""
    return {
        "name": "synthetic",
        "seed": 0,
        "classes": 24,  # 2 to 48
        "unlabelled": 4096,
        "labelled": 512,
        "val": 512,
        "test": 1024,
        "missing": 0.1,  # share of unlabelled examples that lack one modality
        "audio_noise": 0.7,  # background noise and distractor tone, 0 = none
        "audio_jitter": 0.7,  # spread of pitch and timbre within a class, 0 = none
        "video_noise": 0.5,  # texture, clutter, pixel noise and faintness, 0 = none
        "video_jitter": 0.5,  # spread of hue, outline, place and turn within a class, 0 = none
        "caption_names_class": 0.255,  # share of captions that name the class, as AudioSet's titles do
        "caption_hint": 0.35,  # share of the others that hold a word shared by several classes
        "caption_drop": 0.3,  # chance that the word of a hidden factor is left out
        "cache": True,  # generate each split once and keep it in memory
    }


def load(data_config: Mapping[str, Any], modalities_config: Mapping[str, Any]) -> Dataset:
    """The synthetic data set; any of the kinds spectrogram, video, image and text, under any names."""
    config = complete(data_config, default_config())
    _check(config, modalities_config)
    wrap = Cached if config["cache"] else lambda source: source
    sizes = {split: config[split] for split in ("unlabelled", "labelled", "val", "test")}
    splits: dict[str, Source] = {
        split: wrap(SyntheticSource(config, modalities_config, split, size)) for split, size in sizes.items()
    }
    return Dataset(
        name="synthetic",
        modalities=tuple(modalities_config),
        splits=splits,
        class_names=synthetic_text.class_names(config["classes"]),
        notes=[
            f"Synthetic world, seed {config['seed']}: {config['classes']} classes; "
            + ", ".join(f"{split} {size}" for split, size in sizes.items())
            + f"; {config['missing']:.0%} of the unlabelled examples lack one modality."
        ],
        words=synthetic_text.words(config["classes"]),
    )


class SyntheticSource:
    """One split of the world; see `default_config` for the knobs."""

    def __init__(self, config: Mapping[str, Any], modalities: Mapping[str, Mapping[str, Any]], split: str, size: int):
        self._config = config
        self._size = size
        self._missing = config["missing"] if split == "unlabelled" else 0.0
        self._keys = {m: _key(config["seed"], split, m) for m in ("", *modalities)}
        self._renderers = {m: _renderer(m, spec, config) for m, spec in modalities.items()}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._size:
            raise IndexError(index)
        rng = self._stream("", index)
        factors = _draw_factors(rng, index % self._config["classes"], self._config["classes"])
        absent = self._draw_absent(rng)
        record: Record = {"inputs": {}, "present": {}, "length": {}, "label": factors.label, "id": index}
        for m, render in self._renderers.items():
            array, length = render(self._stream(m, index), factors)
            record["inputs"][m] = np.zeros_like(array) if m == absent else array
            record["present"][m] = m != absent
            record["length"][m] = 0 if m == absent else length
        return record

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        ids = np.arange(self._size, dtype=np.int32)
        return ids % np.int32(self._config["classes"]), ids

    def _stream(self, name: str, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self._keys[name], counter=[0, index, 0, 0]))

    def _draw_absent(self, rng: np.random.Generator) -> str | None:
        lacks, which = rng.random(2)
        names = list(self._renderers)
        if len(names) < 2 or lacks >= self._missing:
            return None
        return names[int(which * len(names))]


def _draw_factors(rng: np.random.Generator, label: int, classes: int) -> Factors:
    tempo, direction, level = (rng.random(3) * (synthetic_media.TEMPI, 3, 3)).astype(int).tolist()
    tints = -(-classes // FORMS)
    return Factors(label, label % FORMS, label // FORMS, tints, tempo, direction, level)


def _renderer(name: str, spec: Mapping[str, Any], config: Mapping[str, Any]) -> Renderer:
    kind = spec["kind"]
    if kind == "spectrogram":
        return synthetic_media.AudioRenderer(spec, config)
    if kind in ("video", "image"):
        return synthetic_media.FrameRenderer(name, spec, config)
    if kind == "text":
        return synthetic_text.CaptionRenderer(spec, config)
    raise UserError(
        f"modality {name!r} is of kind {kind!r}; the synthetic world makes spectrogram, video, image and text"
    )


def _key(seed: int, split: str, modality: str) -> int:
    """128-bit key of a Philox stream; the record's index is its counter."""
    digest = hashlib.blake2b(repr((int(seed), split, modality)).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def _check(config: Mapping[str, Any], modalities: Mapping[str, Any]) -> None:
    if not modalities:
        raise UserError("no modalities are configured: the synthetic world needs at least one")
    if not 2 <= config["classes"] <= MAX_CLASSES:
        raise UserError(f"data.classes is {config['classes']}, allowed are 2 to {MAX_CLASSES}")
    for key in ("unlabelled", "labelled", "val", "test"):
        if config[key] < 1:
            raise UserError(f"data.{key} is {config[key]}, it must be at least 1")
    for key in ("missing", "caption_names_class", "caption_hint", "caption_drop"):
        if not 0 <= config[key] <= 1:
            raise UserError(f"data.{key} is {config[key]}, it is a share between 0 and 1")
    for key in ("audio_noise", "audio_jitter", "video_noise", "video_jitter"):
        if config[key] < 0:
            raise UserError(f"data.{key} is {config[key]}, it cannot be negative")
