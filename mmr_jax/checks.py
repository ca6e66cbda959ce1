"""Refuse a config that no stage could use, before anything runs, with a line that names the field."""

import re
from collections.abc import Sequence

from ml_collections import ConfigDict

from mmr_jax.config import METHODS, flatten, freeze
from mmr_jax.errors import UserError, nearest
from mmr_jax.robustness.subsets import parse_subset, subset_name
from mmr_jax.train.optim import make_optimizer

RECIPES = ("pretrain", "probe", "finetune")
CHOICES = {
    "model.fusion": ("mean", "joint"),
    "model.embedding": ("projected", "backbone"),
    "model.stream_norms": ("own", "shared"),
    "finetune.select": ("best", "last"),
    "finetune.init_head": ("probe", "zero"),
    "masd.source": ("pretraining", "train"),
}
# field: (lowest, highest, whether the ends are allowed)
RANGES = {
    "finetune.label_share": (0.0, 1.0, (False, True)),
    "masd.train_share": (0.0, 1.0, (False, False)),
    "modality_dropout.rate": (0.0, 1.0, (True, False)),
    "wise_ft.alpha": (0.0, 1.0, (True, True)),
}


def check(config: ConfigDict) -> None:
    """Raise UserError for the first field that cannot work."""
    fields = flatten(config)
    for name in config.modalities:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UserError(f"modality {name!r}: names are letters, digits, _ and -")
    for key, allowed in CHOICES.items():
        if fields[key] not in allowed:
            raise UserError(f"{key} is {fields[key]!r}{nearest(str(fields[key]), allowed)}")
    for key, (low, high, (at_low, at_high)) in RANGES.items():
        value = fields[key]
        if not (low < value < high or (at_low and value == low) or (at_high and value == high)):
            raise UserError(f"{key} is {value}, which is not between {low} and {high}")
    for recipe in RECIPES:
        _check_recipe(recipe, config[recipe])
    _check_lists(config)


def _check_recipe(name: str, recipe: ConfigDict) -> None:
    for key in ("steps", "batch_size", "log_every"):
        if recipe[key] < 1:
            raise UserError(f"{name}.{key} is {recipe[key]}; at least 1 is needed")
    try:
        make_optimizer(freeze(recipe.optim), recipe.steps)
    except UserError as error:
        raise UserError(f"{name}.{error}") from None
    for pattern in recipe.get("freeze", ()):
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{name}.freeze: {pattern!r} is no regular expression: {error}") from None


def _check_lists(config: ConfigDict) -> None:
    study = config.study
    for method in study.methods:
        if method not in METHODS:
            raise UserError(f"study.methods: unknown method {method!r}{nearest(method, METHODS)}")
    if study.export and study.export not in study.methods:
        hint = nearest(study.export, study.methods)
        raise UserError(f"study.export is {study.export!r}, which is not in study.methods{hint}")
    everything = subset_name(config.modalities)
    pretrain = [everything if s == "all" else s for s in config.pretrain.modalities]
    lists = {
        "study.methods": study.methods,
        "study.test_splits": study.test_splits,
        "seeds": config.seeds,
        "study.train_subsets": _subsets("study.train_subsets", study.train_subsets, config) or [everything],
        "pretrain.modalities": _subsets("pretrain.modalities", pretrain, config),
    }
    for field, values in lists.items():
        if not values:
            raise UserError(f"{field} is empty; name at least one")
        twice = [v for v in values if list(values).count(v) > 1]
        if twice:
            raise UserError(f"{field} names {twice[0]!r} twice")
    for subset in lists["pretrain.modalities"]:
        if "+" not in subset:
            raise UserError(f"pretrain.modalities: {subset!r} is a single modality; contrastive pretraining needs two")


def _subsets(field: str, subsets: Sequence[str], config: ConfigDict) -> list[str]:
    try:
        return ["+".join(parse_subset(s, sorted(config.modalities))) for s in subsets]
    except UserError as error:
        raise UserError(f"{field}: {error}") from None


def check_splits(names: Sequence[str], splits: Sequence[str]) -> None:
    """Every test split that the config names must be one of the data set's."""
    for name in names:
        if name not in splits:
            raise UserError(f"study.test_splits: the data set has no split {name!r}{nearest(name, splits)}")
