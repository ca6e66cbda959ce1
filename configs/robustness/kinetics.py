"""Kinetics-400, video and audio; the representation is learned on AudioSet-2M (McKinzie et al., ICML 2023).

    mmr run --config=configs/robustness/kinetics.py --workdir=runs/kinetics --config.pretrain.init=FOLDER

`:mae` pretrains by masking, default is contrastive (FOLDER: CLIP, as there). The media: --config.data.folder=DIR for
Kinetics (`mmr prepare --dataset=kinetics400 --frames=4`), and AudioSet's in prepared/audioset, or wherever
--config.data.unlabelled=DIR/unbalanced says; without them --dry_run --shapes works. Not run here, so there are no
minutes to report. Expect (paper) P and R raised by MASD and WiSE-FT together, most in Transfer; the cells of its tables
are not known to us.

Paper: 246,245 clips to train and 40,000 to evaluate, top-1 accuracy; pretraining as in audioset_contrastive.py and
audioset_mae.py, without titles here. D_SD are 20,000 AudioSet clips (default), or a random fifth of Kinetics whose
labels go: --config.masd.source=train.
Ours, where the paper says nothing: as there, and 10 epochs downstream at batch 256.
"""

from pathlib import Path

from mmr_jax import config as c
from mmr_jax.errors import UserError, nearest

FILES = {"": "audioset_contrastive.py", "mae": "audioset_mae.py"}
EPOCHS, BATCH = 10, 256


def get_config(argument=""):
    if argument not in FILES:
        raise UserError(f"kinetics.py has no variant {argument!r}{nearest(argument, FILES)}")
    config = c.load(Path(__file__).with_name(FILES[argument]))
    config.name = "kinetics"
    clips = dict(unlabelled="prepared/audioset/unbalanced", labelled="train", val="val", test="val")
    config.data.update(dataset="kinetics400", **clips)
    config.data.sizes.update(labelled=246245, test=40000)
    with config.unlocked():
        for part in (config.modalities, config.pretrain.masking, config.pretrain.init_from, config.model.overrides):
            if "text" in part:
                del part["text"]
    epoch = config.data.sizes.labelled // BATCH
    config.finetune.update(batch_size=BATCH, steps=EPOCHS * epoch)
    config.finetune.optim.warmup_steps = epoch
    return config
