"""Checks of the blocks of a config that `train/loop.py` runs: pretrain, probe and finetune."""

from ml_collections import ConfigDict

from mmr_jax.config import freeze
from mmr_jax.errors import UserError, nearest
from mmr_jax.objectives.masking import MODES
from mmr_jax.patterns import check_regex
from mmr_jax.train.optim import make_optimizer


def check_recipe(name: str, recipe: ConfigDict) -> None:
    """One block. No step at all is legal in pretraining alone: a study that starts from published weights."""
    lowest = {"steps": int(name != "pretrain"), "batch_size": 1, "log_every": 1}
    for key, least in lowest.items():
        if recipe[key] < least:
            raise UserError(f"{name}.{key} is {recipe[key]}; at least {least} is needed")
    _check_average(name, recipe)
    _check_groups(f"{name}.optim.groups", recipe.optim.groups)
    try:
        make_optimizer(freeze(recipe.optim), recipe.steps)
    except UserError as error:
        raise UserError(f"{name}.{error}") from None
    for pattern in recipe.get("freeze", ()):
        check_regex(f"{name}.freeze", pattern)
    if recipe.get("select") == "best" and not recipe.validate_every:
        raise UserError(f"{name}.select='best' needs {name}.validate_every above 0, or else set it to 'last'")


def _check_average(name: str, recipe: ConfigDict) -> None:
    every, start = recipe.average_every, recipe.average_from
    if recipe.ema and every:
        raise UserError(f"{name}.ema and {name}.average_every exclude each other: set one of them to 0")
    if every < 0 or start < 0 or (every and recipe.steps // every * every < max(start, 1)):
        raise UserError(f"{name}: no step up to {recipe.steps} is a multiple of average_every {every} from {start} on")


def _check_groups(field: str, groups) -> None:
    for group in groups:
        if not (isinstance(group, tuple | list) and len(group) == 2 and isinstance(group[1], int | float)):
            raise UserError(f"{field} holds {group!r}; pairs (regex, factor) are expected, as ('head', 10.0)")
        check_regex(field, group[0])


def check_masking(config: ConfigDict) -> None:
    """What masked pretraining needs; the contrastive objective does not read these fields."""
    recipe, model = config.pretrain, config.model
    if recipe.objective != "masked":
        return
    if not (recipe.reconstruction_weight or recipe.contrastive_weight):
        raise UserError("pretrain: reconstruction_weight and contrastive_weight are both 0; nothing would be trained")
    width, heads = recipe.decoder.width, recipe.decoder.heads
    if width % heads:
        raise UserError(f"pretrain.decoder: width {width} is not divisible by heads {heads}")
    if model.overrides:
        raise UserError("pretrain.objective='masked' needs towers of one shape: leave model.overrides empty")
    if recipe.mask_together and (model.adapter_depth != 0 or model.class_token or recipe.contrastive_weight):
        raise UserError(
            "pretrain.mask_together needs model.adapter_depth=0, model.class_token=False and contrastive_weight=0: "
            "the modalities are one sequence from the first block on"
        )
    for name, masking in recipe.masking.items():
        modes = MODES if config.modalities[name].kind == "spectrogram" else MODES[:1]
        if masking.mode not in modes:
            raise UserError(f"pretrain.masking.{name}.mode is {masking.mode!r}{nearest(masking.mode, modes)}")
        if not 0 <= masking.ratio < 1:
            raise UserError(f"pretrain.masking.{name}.ratio is {masking.ratio}; at least 0 and below 1 is needed")
