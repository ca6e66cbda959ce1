"""Captions of the synthetic world."""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmr_jax.data.synthetic_media import Factors
from mmr_jax.data.text import encode

_TEMPO = (("slow", "lazy"), ("steady", "calm"), ("quick", "brisk"), ("rapid", "hasty"))
_DIRECTION = (("rising", "upward"), ("level", "flat"), ("falling", "downward"))
_LEVEL = (("small", "faint"), ("medium", "middling"), ("big", "strong"))
_FORM_HINT = (
    ("river", "brook"),
    ("forest", "grove"),
    ("desert", "dune"),
    ("harbour", "quay"),
    ("meadow", "field"),
    ("summit", "ridge"),
)
_TINT_HINT = (
    ("monday", "morning"),
    ("friday", "evening"),
    ("winter", "snow"),
    ("summer", "sun"),
    ("market", "fair"),
    ("garden", "yard"),
    ("castle", "tower"),
    ("island", "shore"),
)
_OPENERS = ("a", "the", "one", "hear", "see", "my", "")
_FILLERS = ("today", "again", "here", "clip", "now", "take 2", "hd", "live", "", "", "")


@functools.cache
def class_names(classes: int) -> tuple[str, ...]:
    """Made-up names, all different; the name of class c does not depend on how many classes there are."""
    rng = np.random.Generator(np.random.Philox(key=2024))
    names: list[str] = []
    while len(names) < classes:
        consonants = rng.integers(0, 12, 3)
        vowels = rng.integers(0, 5, 3)
        name = "".join("bdfgklmnprtz"[c] + "aeiou"[v] for c, v in zip(consonants, vowels, strict=True))
        if name not in names:
            names.append(name)
    return tuple(names)


def words(classes: int) -> tuple[str, ...]:
    """All words that a caption can hold."""
    synonyms = itertools.chain(*_TEMPO, *_DIRECTION, *_LEVEL, *_FORM_HINT, *_TINT_HINT)
    written = itertools.chain(class_names(classes), synonyms, _OPENERS, *(filler.split() for filler in _FILLERS))
    return tuple(dict.fromkeys(filter(None, written)))


class CaptionRenderer:
    """Writes captions: the class by name, by a hint or not at all, and words for the hidden factors."""

    def __init__(self, spec: Mapping[str, Any], config: Mapping[str, Any]):
        self._spec = spec
        self._config = config
        self._names = class_names(config["classes"])

    def __call__(self, rng: np.random.Generator, factors: Factors) -> tuple[np.ndarray, int]:
        return encode(self.caption(rng, factors), self._spec)

    def caption(self, rng: np.random.Generator, factors: Factors) -> str:
        """The caption of one example."""
        u = rng.random(14).tolist()
        kept = [
            _pick(words[value], u[3 * k + 1])
            for k, (words, value) in enumerate(
                ((_TEMPO, factors.tempo), (_LEVEL, factors.level), (_DIRECTION, factors.direction))
            )
            if u[3 * k] >= self._config["caption_drop"]
        ]
        if u[2] < 0.5:
            kept.reverse()
        topic = self._topic(factors, u[9], u[10], u[11])
        words = [topic, *kept] if u[5] < 0.5 else [*kept, topic]
        return " ".join(filter(None, (_pick(_OPENERS, u[12]), *words, _pick(_FILLERS, u[13]))))

    def _topic(self, factors: Factors, u_kind: float, u_which: float, u_word: float) -> str:
        named = self._config["caption_names_class"]
        if u_kind < named:
            return self._names[factors.label]
        if u_kind < named + (1 - named) * self._config["caption_hint"]:
            hints = _FORM_HINT[factors.form] if u_which < 0.5 else _TINT_HINT[factors.tint]
            return _pick(hints, u_word)
        return ""


def _pick(words: tuple[str, ...], u: float) -> str:
    return words[int(u * len(words))]
