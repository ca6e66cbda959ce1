"""The methods that a study compares: how each turns the pretrained weights into a model for one training subset M_T.

A trained method is an objective; an interpolated one mixes a trained one with the linear probe. To add a method,
add its objective's file and one entry here.
"""

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from mmr_jax.models.model import Model
from mmr_jax.objectives import Contrastive, Masd, ModalityDropout, Supervised
from mmr_jax.objectives.base import Frozen, Objective

Maker = Callable[[ConfigDict, Model, tuple[str, ...], bool], Objective | None]


def _finetune(config, model, modalities, multilabel):
    return Supervised(model, modalities)


def _modality_dropout(config, model, modalities, multilabel):
    return ModalityDropout(model, modalities, config.modality_dropout.rate) if len(modalities) > 1 else None


def _masd(config, model, modalities, multilabel):
    if len(modalities) == len(model.names):
        return None
    return Masd(model, modalities, multilabel, config.masd.weight, config.masd.temperature)


# A maker returns None where the method is plain fine-tuning by definition: MASD without a modality left for a
# student, modality dropout with nothing to drop.
TRAINED: dict[str, Maker] = {"finetune": _finetune, "modality_dropout": _modality_dropout, "masd": _masd}
INTERPOLATED = {"wise_ft": "finetune", "masd_wise_ft": "masd"}
PROBE = "linear_probe"
# The blocks of the config, besides `finetune`, on which a trained method depends.
SETTINGS = {"modality_dropout": "modality_dropout", "masd": "masd"}


def objective(
    method: str, config: ConfigDict, model: Model, modalities: Sequence[str], multilabel: bool
) -> Objective | None:
    """The objective of a trained method for M_T = `modalities`; None where it is plain fine-tuning."""
    made = TRAINED[method](config, model, tuple(sorted(modalities)), multilabel)
    patterns = tuple(config.finetune.freeze)
    return Frozen(made, patterns) if made is not None and patterns else made


def pretraining(config: ConfigDict, model: Model, modalities: Sequence[str]) -> Objective:
    """The objective of pretraining on unlabelled examples of `modalities`."""
    recipe = config.pretrain
    temperature = (recipe.temperature, recipe.learn_temperature)
    return Contrastive(model, tuple(sorted(modalities)), *temperature, recipe.symmetric)


def trained_for(methods: Sequence[str]) -> list[str]:
    """The trained methods that `methods` need, fine-tuning first (it also stands in where a method is it)."""
    wanted = {INTERPOLATED.get(m, m) for m in methods} - {PROBE}
    return [m for m in TRAINED if m in wanted or (m == "finetune" and wanted)]
