"""The methods that a study compares: how each turns the pretrained weights into a model for one training subset M_T.

A trained method is an objective; an interpolated one mixes a trained one with the linear probe. To add a method,
add its objective's file and one entry of `METHODS` here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
from ml_collections import ConfigDict

from mmr_jax import tree
from mmr_jax.config import freeze
from mmr_jax.errors import UserError
from mmr_jax.models.decoder import build_decoder
from mmr_jax.models.model import Model
from mmr_jax.objectives import Contrastive, LinearProbe, Masd, Masked, ModalityDropout, Supervised
from mmr_jax.objectives.base import Frozen, Objective
from mmr_jax.objectives.mixup import Mixup
from mmr_jax.patterns import check_patterns

Maker = Callable[[ConfigDict, Model, tuple[str, ...], bool], Objective | None]


@dataclass(frozen=True)
class Method:
    """One method: `make` its objective, or interpolate the method `mixes` with the probe, or neither: the probe itself.

    `blocks` of the config are what it depends on besides `finetune`; `make` is given no others, so none is forgotten
    in the digest of its stages. It returns None where the method is plain fine-tuning by definition.
    """

    make: Maker | None = None
    blocks: tuple[str, ...] = ()
    mixes: str = ""


def _shared(config):
    """What all trained methods take from `finetune`."""
    recipe = config.finetune
    mixup = Mixup(float(recipe.mixup), float(recipe.mixup_alpha), float(recipe.label_smoothing))
    return {"mixup": mixup, "microbatches": recipe.microbatches}


def _finetune(config, model, modalities, multilabel):
    return Supervised(model, modalities, **_shared(config))


def _modality_dropout(config, model, modalities, multilabel):
    if len(modalities) == 1:  # nothing to drop
        return None
    return ModalityDropout(model, modalities, config.modality_dropout.rate, **_shared(config))


def _masd(config, model, modalities, multilabel):
    if len(modalities) == len(model.names):  # no modality is left for a student
        return None
    return Masd(model, modalities, multilabel, config.masd.weight, config.masd.temperature, **_shared(config))


PROBE = "linear_probe"
METHODS: dict[str, Method] = {
    PROBE: Method(),
    "finetune": Method(_finetune),
    "modality_dropout": Method(_modality_dropout, ("modality_dropout",)),
    "masd": Method(_masd, ("masd",)),
    "wise_ft": Method(mixes="finetune", blocks=("wise_ft",)),
    "masd_wise_ft": Method(mixes="masd", blocks=("wise_ft",)),
}
TRAINED = tuple(name for name, method in METHODS.items() if method.make)
INTERPOLATED = {name: method.mixes for name, method in METHODS.items() if method.mixes}


def objective(
    method: str, config: ConfigDict, model: Model, modalities: Sequence[str], multilabel: bool
) -> Objective | None:
    """The objective of a trained method for M_T = `modalities`; None where it is plain fine-tuning."""
    entry = METHODS[method]
    allowed = ConfigDict({block: config[block] for block in ("finetune", *entry.blocks)})
    made = entry.make(allowed, model, tuple(sorted(modalities)), multilabel)
    patterns = tuple(config.finetune.freeze)
    return _frozen(made, patterns, model) if made is not None and patterns else made


def _frozen(made: Objective, patterns: tuple[str, ...], model: Model) -> Frozen:
    frozen, paths = Frozen(made, patterns), list(tree.flatten(model.shapes))
    check_patterns("finetune.freeze", patterns, paths)
    if not any(frozen.trains(path) for path in paths):
        raise UserError(f"finetune.freeze: {list(patterns)} leaves nothing to train")
    return frozen


def pretraining(config: ConfigDict, model: Model, modalities: Sequence[str]) -> Objective:
    """The objective of pretraining on unlabelled examples of `modalities`."""
    recipe, names = config.pretrain, tuple(sorted(modalities))
    contrast = dict(loss_name=recipe.loss, contrast=recipe.contrast, bias=float(recipe.logit_bias))
    contrast |= dict(microbatches=recipe.microbatches)
    if recipe.objective == "contrastive":
        settings = (recipe.temperature, recipe.learn_temperature, recipe.direction)
        return Contrastive(model, names, *settings, **contrast)
    weights = (float(recipe.reconstruction_weight), float(recipe.contrastive_weight))
    return Masked(
        model,
        build_decoder(model, freeze(recipe.decoder), names),
        tuple((m, recipe.masking[m].ratio, recipe.masking[m].mode) for m in names),
        *weights,
        recipe.temperature,
        recipe.direction,
        recipe.norm_targets,
        recipe.mask_together,
        **contrast,
    )


def check_groups(config: ConfigDict, model: Model) -> None:
    """UserError for a regex of a recipe's `optim.groups` that matches none of the parameters that it trains."""
    made = {
        "pretrain": lambda: pretraining(config, model, model.names),
        "probe": lambda: LinearProbe(1, model.dim, model.num_classes),
        "finetune": lambda: Supervised(model, model.names),
    }
    for recipe, make in made.items():
        patterns = [pattern for pattern, _ in config[recipe].optim.groups]
        if patterns:
            params, _ = jax.eval_shape(make().init, jax.random.key(0))
            check_patterns(f"{recipe}.optim.groups", patterns, tree.flatten(params))


def trained_for(methods: Sequence[str]) -> list[str]:
    """The trained methods that `methods` need, fine-tuning first (it also stands in where a method is it)."""
    wanted = {INTERPOLATED.get(m, m) for m in methods} - {PROBE}
    return [m for m in TRAINED if m in wanted or (m == "finetune" and wanted)]
