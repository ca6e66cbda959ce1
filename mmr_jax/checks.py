"""Refuse a config that no stage could use, before anything runs, with a line that names the field."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from mmr_jax.checks_model import at_least, check_modality, check_model
from mmr_jax.checks_training import check_masking, check_recipe
from mmr_jax.config import flatten
from mmr_jax.errors import UserError, nearest
from mmr_jax.methods import METHODS
from mmr_jax.objectives.contrastive import CONTRASTS, LOSSES
from mmr_jax.robustness.subsets import parse_subset, subset_name

RECIPES = ("pretrain", "probe", "finetune")
CHOICES = {
    "model.fusion": ("mean", "joint"),
    "model.embedding": ("projected", "backbone"),
    "model.stream_norms": ("own", "shared"),
    "model.normalize": ("l2", "layer", "none"),
    "pretrain.objective": ("contrastive", "masked"),
    "pretrain.direction": ("both", "forward", "backward"),
    "pretrain.loss": LOSSES,
    "pretrain.contrast": CONTRASTS,
    "finetune.select": ("best", "last"),
    "finetune.init_head": ("probe", "zero"),
    "masd.source": ("pretraining", "train"),
}
INFINITE = float("inf")
# field: (lowest, highest, whether the ends are allowed)
RANGES = {
    "model.norm_eps": (0.0, INFINITE, (False, False)),
    "pretrain.temperature": (0.0, INFINITE, (False, False)),
    "pretrain.logit_bias": (-INFINITE, INFINITE, (False, False)),
    "pretrain.reconstruction_weight": (0.0, INFINITE, (True, False)),
    "pretrain.contrastive_weight": (0.0, INFINITE, (True, False)),
    "finetune.label_share": (0.0, 1.0, (False, True)),
    "finetune.mixup": (0.0, 1.0, (True, True)),
    "finetune.mixup_alpha": (0.0, INFINITE, (False, False)),
    "finetune.label_smoothing": (0.0, 1.0, (True, False)),
    "masd.weight": (0.0, INFINITE, (True, False)),
    "masd.temperature": (0.0, INFINITE, (False, False)),
    "masd.train_share": (0.0, 1.0, (False, False)),
    "modality_dropout.rate": (0.0, 1.0, (True, False)),
    "wise_ft.alpha": (0.0, 1.0, (True, True)),
}
# The same for each block that the training loop runs. An ema of 1 would keep the first weights for ever.
RECIPE_RANGES = {
    "ema": (0.0, 1.0, (True, False)),
    "optim.lr": (0.0, INFINITE, (True, False)),
    "optim.weight_decay": (0.0, INFINITE, (True, False)),
    "optim.clip": (0.0, INFINITE, (True, False)),
    "optim.b1": (0.0, 1.0, (True, False)),
    "optim.b2": (0.0, 1.0, (True, False)),
    "optim.eps": (0.0, INFINITE, (True, False)),
    "optim.decay_factor": (0.0, INFINITE, (True, False)),
}
RANGES |= {f"{recipe}.{key}": limits for recipe in RECIPES for key, limits in RECIPE_RANGES.items()}
# field: lowest whole number
COUNTS = {"study.eval_batch_size": 1, "study.retrieval": 0, "study.reconstructions": 0, "masd.clips": 0}
COUNTS |= dict.fromkeys(("pretrain.microbatches", "finetune.microbatches"), 1)
COUNTS |= {f"pretrain.decoder.{key}": 1 for key in ("width", "depth", "heads", "mlp_dim")}
_CADENCE = {"checkpoint_every": 0, "keep_last": 1, "keep_every": 0, "validate_every": 0, "optim.warmup_steps": 0}
COUNTS |= {f"{recipe}.{key}": least for recipe in RECIPES for key, least in _CADENCE.items()}


def check(config: ConfigDict) -> None:
    """Raise UserError for the first field that cannot work."""
    fields = flatten(config)
    for name, modality in config.modalities.items():
        check_modality(name, modality)
    for key, allowed in CHOICES.items():
        if fields[key] not in allowed:
            raise UserError(f"{key} is {fields[key]!r}{nearest(str(fields[key]), allowed)}")
    _check_numbers(fields)
    if config.pretrain.loss == "sigmoid" and config.pretrain.direction != "both":
        raise UserError("pretrain.direction is of no use to pretrain.loss='sigmoid': set it to 'both'")
    check_model(config.model)
    for recipe in RECIPES:
        check_recipe(recipe, config[recipe])
    check_masking(config)
    _check_lists(config)


def _check_numbers(fields: Mapping[str, object]) -> None:
    values = [(key, fields[key], limits) for key, limits in RANGES.items()]
    values += [("wise_ft.alphas", alpha, RANGES["wise_ft.alpha"]) for alpha in fields["wise_ft.alphas"]]
    for key, value, (low, high, (at_low, at_high)) in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (low < value < high or (at_low and value == low) or (at_high and value == high)):
            ends = f"at least {low:g}" if at_low else f"above {low:g}"
            ends += "" if high == INFINITE else f" and at most {high:g}" if at_high else f" and below {high:g}"
            raise UserError(f"{key} is {value!r}; a number {ends} is needed")
    for key, least in COUNTS.items():
        at_least(key, fields[key], least)
    for seed in fields["seeds"]:
        at_least("seeds", seed, 0)


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
    contrastive = config.pretrain.objective == "contrastive" or config.pretrain.contrastive_weight
    contrastive = contrastive and config.pretrain.steps  # without a step no loss is computed
    for subset in lists["pretrain.modalities"]:
        if contrastive and "+" not in subset:
            raise UserError(f"pretrain.modalities: {subset!r} is a single modality; the contrastive loss needs two")


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
