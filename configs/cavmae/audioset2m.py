"""CAV-MAE fine-tuned on AudioSet-2M (Gong et al., ICLR 2023; released scripts of YuanGongND/cav-mae).

    mmr run --config=configs/cavmae/audioset2m.py --workdir=runs/as2m --config.pretrain.init=FOLDER

FOLDER, `:audio`, the media, what is published and what is ours: see audioset20k.py. Not run here, so there are no
minutes to report. Expect (paper) 51.2 mAP; the released log of a second run has 51.05, of which 1 comes from averaging
ten frames. Audio alone: 46.6. Clips are drawn with replacement, rare classes more often; an epoch is as many draws as
there are clips. The learning rate halves after epoch 2 and every epoch from there; the weights after all 10 epochs are
averaged.
Ours: the same clips are the unlabelled and the labelled set, and pretraining draws them without balance, as published.
"""

from pathlib import Path

from mmr_jax import config as c

EPOCHS, BATCH = 10, 48


def get_config(argument=""):
    path = Path(__file__).with_name("audioset20k.py")
    config = c.load(f"{path}:{argument}")
    config.name = "cavmae_audioset2m"
    config.data.sizes.labelled = config.data.sizes.unlabelled
    config.data.labelled = config.data.unlabelled
    recipe, epoch = config.finetune, config.data.sizes.labelled // BATCH
    recipe.update(batch_size=BATCH, steps=EPOCHS * epoch, average_every=epoch, average_from=epoch)
    recipe.update(balanced=True, log_every=100, checkpoint_every=2000)
    recipe.optim.update(lr=1e-5, decay_at=tuple(e / EPOCHS for e in range(2, EPOCHS)))
    recipe.optim.groups = ((recipe.optim.groups[0][0], 50.0),)
    return config
