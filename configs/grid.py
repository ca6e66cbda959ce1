"""GRID, talker s1: sound, face and transcript of spoken commands; real media to the report with two commands.

    mmr prepare --dataset=grid --labels=FOLDER --media=FOLDER --out=prepared/grid --frames=12 --short_side=72
    mmr run --config=configs/grid.py --workdir=runs/grid

FOLDER holds index.csv and clips/ (docs/datasets.md). The label is the colour word; --config.data.label=digit
--config.data.text=no_digit takes the digit, with its word left out of the text. Everything starts from scratch:
contrastive pretraining and task on the same 567 clips, 63 to validate, 210 to test.
1 min and 36 min on 2 cores that had other work to do as well. Expect, at M_E = M_T on colour (chance 25 %), 86 % from
audio (78 % in the mean of seeds 0, 1, 2), 100 % from text, which holds the word, and chance from this video of 4 frames
a second. MASD lifts Transfer P from 39.7 to 57.5 %: trained on sound alone it reads the transcript at 99.5 %, where
fine-tuning reads 48.1 %. The digit has 64 % from audio (chance 10 %), and nothing else knows it.
"""

from mmr_jax import config as c

AUDIO = dict(samples=47840, frames=304, mels=64, patch_size=(8, 64), window="hann", mean=-8.0, std=4.0)
VIDEO = dict(frames=12, height=72, width=72, patch_size=(2, 24, 24))


def get_config():
    text = c.text(length=8, vocab_size=512, tokenizer="word")
    config = c.base("prepared", {"audio": c.spectrogram(**AUDIO), "video": c.video(**VIDEO), "text": text})
    config.name = "grid"
    config.modalities.audio.augment = dict(time_mask=24, mel_mask=12, roll=12, noise=0.1)
    config.data.update(dataset="grid", folder="prepared/grid", label="color", val="train[:10%]", in_memory=True)
    config.data.update(unlabelled="train[10%:]", labelled="train[10%:]")
    config.model.depth, config.model.mlp_dim = 3, 128
    config.model.scan_layers = False
    config.pretrain.update(steps=600, batch_size=64, temperature=0.1)
    config.pretrain.optim = c.optim(lr=2e-3, warmup_steps=50)
    config.probe.batch_size = 128
    config.finetune.update(steps=120, batch_size=64, validate_every=40)
    config.finetune.optim = c.optim(lr=1e-3, warmup_steps=20)
    config.study.methods = ("linear_probe", "finetune", "masd", "wise_ft", "masd_wise_ft")
    return config
