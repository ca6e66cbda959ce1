"""Spoken and handwritten digits with all 2400 training pairs labelled: accuracy on the official test pairs.

    mmr run --config=configs/digits_full.py --workdir=runs/digits_full --config.data.root=FOLDER

30 min on 2 cores that had other work to do as well. Expect, at M_E = M_T over 3 seeds, 99.1 % from audio, 97.4 % from
image, 99.9 % from both on the 300 test pairs, and 97.5 % from image on MNIST's 10,000 test images.
"""

from pathlib import Path

from mmr_jax import config as c


def get_config():
    config = c.load(Path(__file__).with_name("digits.py"))
    config.name = "digits_full"
    config.seeds = (0, 1, 2)
    config.data.labelled = 2400
    config.pretrain.steps = 500
    config.finetune.steps = 1500
    config.finetune.batch_size = 128
    config.finetune.ema = 0.99
    config.finetune.validate_every = 100
    config.finetune.optim = c.optim(lr=2e-3, warmup_steps=50)
    config.study.methods = ("linear_probe", "finetune")
    config.study.export = "finetune"
    return config
