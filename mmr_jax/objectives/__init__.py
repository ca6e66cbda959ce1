"""What is minimised, one file each. An objective is a small hashable object over plain pytrees (see `base`)."""

from mmr_jax.objectives.contrastive import Contrastive, info_nce, pairwise_info_nce, pairwise_sigmoid
from mmr_jax.objectives.masd import Masd, masd_loss
from mmr_jax.objectives.masked import Masked
from mmr_jax.objectives.modality_dropout import ModalityDropout
from mmr_jax.objectives.probe import LinearProbe
from mmr_jax.objectives.supervised import Supervised, classification_loss

__all__ = [
    "Contrastive",
    "LinearProbe",
    "Masd",
    "Masked",
    "ModalityDropout",
    "Supervised",
    "classification_loss",
    "info_nce",
    "masd_loss",
    "pairwise_info_nce",
    "pairwise_sigmoid",
]
