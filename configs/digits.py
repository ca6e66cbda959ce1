"""Spoken and handwritten digits, real data: 300 labelled pairs, 2100 unlabelled ones.

    mmr run --config=configs/digits.py --workdir=runs/digits --config.data.root=FOLDER

FOLDER holds fsdd/ and mnist/ (default: $MMR_DATA, else ../shared/data); --config.data.download=True fetches them.
13 min on 2 cores that had other work to do as well. Expect R 79.8 % from fine-tuning and 89.1 % from MASD + WiSE-FT;
docs/findings.md has the table. `--config.data.split=talker_out` holds a talker out of training.
"""

from mmr_jax import config as c

AUDIO = dict(sample_rate=8000, samples=6400, frames=80, mels=64, patch_size=(16, 16), mean=-6.7, std=3.9)
IMAGE = dict(height=28, width=28, channels=1, patch_size=(7, 7), mean=0.13, std=0.31)


def get_config():
    config = c.base("avdigits", {"audio": c.spectrogram(**AUDIO), "image": c.image(**IMAGE)})
    config.name = "digits"
    config.modalities.audio.augment = dict(time_mask=12, mel_mask=12, roll=6, noise=0.1)
    config.modalities.image.augment = dict(shift=2.0, rotate=12.0, scale=0.1)
    config.model.depth, config.model.mlp_dim = 3, 128
    config.model.scan_layers = False  # few small layers: unrolled they run faster on a CPU
    config.pretrain.steps = 1000
    config.pretrain.temperature = 0.1
    config.pretrain.optim = c.optim(lr=2e-3, warmup_steps=100)
    config.finetune.steps = 200
    config.finetune.optim = c.optim(lr=1e-3, warmup_steps=20)
    config.study.test_splits = ("test", "mnist_test")
    return config
