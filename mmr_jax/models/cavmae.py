"""The five ways in which CAV-MAE's fine-tuning code reads a model (facts of the published code, for parity).

A study uses fusion `joint` (multimodal) or `mean` (single streams); the `missing*` modes, in which a model tuned on
both modalities meets one of them, exist only here.
"""

from collections.abc import Mapping

import jax

from mmr_jax.errors import UserError, nearest
from mmr_jax.models.model import MultimodalModel

# mode -> (uses the joint stream, uses the modality's own stream, modalities)
MODES = {
    "multimodal": (True, False, ("audio", "image")),
    "audioonly": (False, True, ("audio",)),
    "videoonly": (False, True, ("image",)),
    "missingaudioonly": (True, True, ("audio",)),
    "missingvideoonly": (True, True, ("image",)),
}


def finetuned_logits(module: MultimodalModel, mode: str, owned: Mapping[str, tuple]) -> jax.Array:
    """Logits float32 [B, C] in one of `MODES`, from {m: (tokens [B, T, D], mask [B, T])} after the owned blocks.

    "Only" names the modality that is there. The missing* modes average the means of the joint stream and of the
    modality's own stream before the head.
    """
    if mode not in MODES:
        raise UserError(f"CAV-MAE has no fine-tuning mode {mode!r}{nearest(mode, MODES)}")
    joint, own, names = MODES[mode]
    owned = {m: owned[m] for m in names}
    streams = [module.encoder.joint(owned, {m: mask.any(axis=1) for m, (_, mask) in owned.items()})] if joint else []
    streams += [module.encoder.stream(m, *owned[m]) for m in names if own]
    return module.logits(sum(s.pooled for s in streams) / len(streams))
