"""CAV-MAE on VGGSound: fine-tuning, and pretraining (Gong et al., ICLR 2023; released scripts of YuanGongND/cav-mae).

    mmr run --config=configs/cavmae/vggsound.py --workdir=runs/vggsound --config.pretrain.init=FOLDER
    mmr pretrain --config=configs/cavmae/vggsound.py:pretrain --workdir=runs/vggsound_pretrain

Fine-tuning: FOLDER, `:audio`, `:image`, what is published and what is ours: see audioset20k.py. Pretraining on
VGGSound: `:pretrain` from the ImageNet MAE (25 epochs, lr 1e-4), `:again` from scale++ (10 epochs, lr 5e-5, never
lowered), both at batch 120. The media: --config.data.folder=DIR, which `mmr prepare --dataset=vggsound --frames=10
--short_side=224` writes. VGGSounder's labels of what is heard and what is seen are scored beside, as further test sets.
Not run here, so there are no minutes to report. Expect (paper) 65.5 % and 65.9 % with the extra pretraining on
VGGSound, 65.8 % from scale++; audio 59.8 %. The published log matches .636 of 30 after `:pretrain`, .754 after
`:again`. Labels are single: softmax cross-entropy against soft targets, accuracy. The learning rate halves after epoch
2 and every epoch from there; the weights after epochs 3 to 10 are averaged. The scripts keep AudioSet's mean and
deviation here.
"""

from pathlib import Path

from mmr_jax import config as c

EPOCHS, BATCH = 10, 48
PRETRAINING = {"pretrain": (25, 1e-4, "weights/mae"), "again": (10, 5e-5, "weights/cavmae")}  # epochs, lr, start
DECAY = (10, 15, 20)  # epochs


def get_config(argument=""):
    file = "audioset_base.py" if argument in PRETRAINING else f"audioset20k.py:{argument}"
    config = c.load(f"{Path(__file__).parent}/{file}")
    config.name = "cavmae_vggsound"
    config.data.update(dataset="vggsound", unlabelled="train", labelled="train", val="test", test="test")
    config.data.more_tests = ("audible=test#audible", "visible=test#visible")
    config.study.test_splits = ("test", "audible", "visible")
    config.data.sizes.update(unlabelled=183727, labelled=183727, test=15446)
    if argument in PRETRAINING:
        epochs, lr, start = PRETRAINING[argument]
        config.pretrain.update(batch_size=120, steps=epochs * (config.data.sizes.unlabelled // 120), init=start)
        config.pretrain.optim.update(lr=lr, decay_at=tuple(e / epochs for e in DECAY if e < epochs))
        return config
    recipe, epoch = config.finetune, config.data.sizes.labelled // BATCH
    recipe.update(batch_size=BATCH, steps=EPOCHS * epoch, average_every=epoch, average_from=3 * epoch)
    recipe.update(balanced=True, checkpoint_every=2000)
    recipe.optim.update(lr=1e-4, decay_at=tuple(e / EPOCHS for e in range(2, EPOCHS)))
    recipe.optim.groups = ((recipe.optim.groups[0][0], 10.0),)
    return config
