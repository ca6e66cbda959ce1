"""CAV-MAE fine-tuned on AudioSet-20K (Gong et al., ICLR 2023; released scripts of YuanGongND/cav-mae).

    mmr run --config=configs/cavmae/audioset20k.py --workdir=runs/as20k --config.pretrain.init=FOLDER

FOLDER holds pretrained weights (published: scale++) as mmr convert writes them; nothing is pretrained here. `:audio`
and `:image` fine-tune on one modality: its own stream and norms all the way, which is model.fusion=mean of one. The
media: --config.data.folder=DIR, see audioset_base.py. Not run here, so there are no minutes to report. Expect (released
models, 17,249 clips) 42.0 mAP from scale+ and 42.2 from scale++; audio 37.7 and 38.3; image 20.0. Of these about .8
comes from averaging the weights after epochs 3 to 15 and .7 from averaging ten frames.

The published evaluation runs every frame and averages sigmoids; scores during its training use frame 5 only and drop
the last batch. The halving of the learning rate starts after epoch 5 and comes every epoch. The paper's enhanced labels
are the training set: --config.finetune.labels=FILE (default: the labels as they are).
Ours: mixup partners come from the same batch (there: from all clips), the new head starts from zero (there: at random),
decay acts on kernels only, bfloat16 (there float16). Batch 36 asks for a number of devices that divides it (there 4).
"""

from pathlib import Path

from mmr_jax import config as c
from mmr_jax.errors import UserError, nearest

EPOCHS = 15
MODES = {"": "audio+image", "audio": "audio", "image": "image"}
HEAD = r"^head(_norm)?/"


def get_config(argument=""):
    if argument not in MODES:
        raise UserError(f"no variant {argument!r}{nearest(argument, MODES)}")
    config = c.load(Path(__file__).with_name("audioset_base.py"))
    config.name = "cavmae_audioset20k"
    config.model.fusion = "mean" if argument else "joint"
    config.modalities.audio.augment.update(mel_mask=48, time_mask=192)
    config.pretrain.update(steps=0, init="weights/cavmae")
    recipe, epoch = config.finetune, config.data.sizes.labelled // 36
    recipe.update(batch_size=36, steps=EPOCHS * epoch, average_every=epoch, average_from=3 * epoch)
    recipe.update(select="last", validate_every=0, init_head="zero", log_every=50, checkpoint_every=epoch)
    recipe.update(mixup=0.5, mixup_alpha=10.0, label_smoothing=0.1)
    recipe.optim = c.optim(name="adam_l2", lr=5e-5, weight_decay=5e-7, b1=0.95, b2=0.999, clip=0.0)
    decay = tuple(e / EPOCHS for e in range(5, EPOCHS))
    recipe.optim.update(schedule="multistep", decay_factor=0.5, decay_at=decay, groups=((HEAD, 100.0),))
    config.study.update(methods=("finetune",), export="finetune", train_subsets=(MODES[argument],))
    return config
