"""Checks of the modalities and of the model's shape, as far as the config alone tells."""

import re
from collections.abc import Mapping

from ml_collections import ConfigDict

from mmr_jax.config import base
from mmr_jax.data.text import FIRST
from mmr_jax.errors import UserError, nearest
from mmr_jax.models.encoder_config import SIZES

SHAPE = ("width", "depth", "heads", "mlp_dim")
# Fields of modalities that count something; a picture may have no frames.
COUNTS = ("sample_rate", "samples", "frames", "mels", "height", "width", "channels", "length", "vocab_size", "dim")
BYTES = 256 + FIRST


def at_least(field: str, value: object, least: int = 1) -> None:
    """UserError unless `value` is a whole number from `least` on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{field} is {value!r}; a whole number of at least {least} is needed")


def check_modality(name: str, cfg: Mapping) -> None:
    """Names, sizes, and a vocabulary that holds every id of the tokenizer: one outside would be embedded as NaN."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"modality {name!r}: names are letters, digits, _ and -")
    field = f"modalities.{name}"
    for key in COUNTS:
        if key in cfg:
            at_least(f"{field}.{key}", cfg[key], int((cfg["kind"], key) != ("image", "frames")))
    for size in cfg.get("patch_size", ()):
        at_least(f"{field}.patch_size", size)
    if cfg["kind"] == "text":
        _check_text(field, cfg)


def _check_text(field: str, cfg: Mapping) -> None:
    least = {"byte": BYTES, "word": FIRST + 1}.get(cfg["tokenizer"], 1)
    if cfg["vocab_size"] < least:
        raise UserError(
            f"{field}.vocab_size is {cfg['vocab_size']}; the tokenizer {cfg['tokenizer']!r} needs at least {least}"
        )
    if cfg["tokenizer"] != "word":  # begin and end
        at_least(f"{field}.length", cfg["length"], 2)


def check_model(model: ConfigDict) -> None:
    """The towers and the projection."""
    at_least("model.projection.dim", model.projection.dim)
    defaults = base("synthetic", {}).model
    _check_tower("model", model, {key: model[key] for key in SHAPE if model[key] != defaults[key]})
    for name, changes in model.overrides.items():
        explicit = {key: changes[key] for key in SHAPE if key in changes}
        _check_tower(f"model.overrides.{name}", {**model, "size": "", **changes}, explicit)


def _check_tower(field: str, tower: Mapping, explicit: Mapping[str, int]) -> None:
    """`explicit` are the numbers that somebody wrote down: a size would pass over them in silence."""
    for key in SHAPE:
        at_least(f"{field}.{key}", tower[key])
    size = tower["size"]
    if size and size not in SIZES:
        raise UserError(f"{field}.size: unknown size {size!r}{nearest(size, SIZES)}")
    for key, number in zip(SHAPE, SIZES[size] if size else (), strict=bool(size)):
        if explicit.get(key, number) != number:
            raise UserError(
                f"{field}.size={size!r} means {key}={number}, but {field}.{key} is {explicit[key]}: "
                f"leave {key} out, or set size='' and {', '.join(SHAPE)}"
            )
    if tower["pool"] == "cls" and tower["causal"]:
        raise UserError(
            f"{field}: pool='cls' with causal=True sees nothing of the input, for the class token comes first; "
            "take pool='last' or 'mean'"
        )
