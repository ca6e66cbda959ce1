"""Audio, video and titles of AudioSet, contrastive pretraining (McKinzie et al., ICML 2023).

    mmr run --config=configs/robustness/audioset_contrastive.py --workdir=runs/contrastive --config.pretrain.init=FOLDER

FOLDER holds the start, CLIP ViT-B/16, as mmr convert writes it. The media: --config.data.folder=DIR, which `mmr prepare
--dataset=audioset --frames=4` writes, with titles.csv among the labels and CLIP's vocabulary at
--config.modalities.text.vocab=FILE; without them --dry_run --shapes works. Not run here, so there are no minutes to
report. Expect (paper) 44.2 mAP on AudioSet-20K with text in pretraining (which method and which row is not known to
us), P and R doubled by MASD in Added and Transfer, and robustness 1.5 to 4 times as good by MASD and WiSE-FT together.

Paper: one ViT-B/16 per modality, InfoNCE over all three pairs (VATT's own weights leave audio-text out), batch 1024,
AdamW, lr 8e-4, 32 epochs; audio of 8 s, Hamming, 128 mels; video scaled to a short side of 256 to 320, of which 224 are
cut at random; D_SD are 20,000 random clips of the pretraining pool; Eq. 7 averages the encoders; alpha 0.75 in WiSE-FT.
Its baseline with 2M labels is --config.data.labelled=unbalanced --config.data.sizes.labelled=1743790.
Ours, where the paper says nothing: sound starts from CLIP's image tower too (its kernel summed over colours, time as
the vertical axis); video is 4 frames of 16 x 16 patches, so that CLIP's patch kernel fits; the text tower is CLIP's
(512 wide, byte pairs; `:base_text` makes it as wide as the others, started at random); a joint space of 512 without
bias, and Eq. 7 averages there, because the towers' widths differ; temperature 0.07 fixed, both directions; negatives
from the whole batch; warm-up of one epoch, cosine, decay 0.05, clip 1; no SpecAugment; log-mel mean and deviation;
probe; downstream batch 64, lr 3e-5, 15 epochs, the last step is kept.
"""

from pathlib import Path

from mmr_jax import config as c
from mmr_jax.errors import UserError, nearest

EPOCHS, BATCH = 32, 1024
DOWNSTREAM_EPOCHS, DOWNSTREAM_BATCH = 15, 64
VARIANTS = ("", "base_text")


def get_config(argument=""):
    if argument not in VARIANTS:
        raise UserError(f"audioset_contrastive.py has no variant {argument!r}{nearest(argument, VARIANTS)}")
    clip = c.load(Path(__file__).with_name("imagenet_captions.py"))
    image = clip.modalities.image
    cuts = dict(stored=256, augment=dict(flip=0.0, zoom=1.25))
    video = c.video(frames=4, patch_size=(1, 16, 16), mean=image.mean, std=image.std, **cuts)
    config = c.base("prepared", {"audio": c.spectrogram(), "video": video, "text": clip.modalities.text})
    config.name = "audioset_contrastive"
    config.data.update(dataset="audioset", unlabelled="unbalanced", labelled="balanced", val="eval", test="eval")
    config.masd.clips = 20000
    config.data.sizes.update(unlabelled=1743790, labelled=18649, test=17065)
    config.model = clip.model
    config.model.attention = "auto"
    config.model.remat = "full"  # else a v5e-64 is too small, as long as layers are scanned: docs/plan.md
    if argument == "base_text":
        with config.model.unlocked():
            del config.model.overrides["text"]
        config.pretrain.init_from.text = ""
    epoch = config.data.sizes.unlabelled // BATCH
    config.pretrain.update(batch_size=BATCH, steps=EPOCHS * epoch, init="weights/clip")
    config.pretrain.init_from.update(audio="image", video="image")
    config.pretrain.update(log_every=100, checkpoint_every=1000)
    config.pretrain.optim = c.optim(lr=8e-4, warmup_steps=epoch)
    config.probe.update(batch_size=1024, steps=1000)
    steps = DOWNSTREAM_EPOCHS * (config.data.sizes.labelled // DOWNSTREAM_BATCH)
    config.finetune.update(batch_size=DOWNSTREAM_BATCH, steps=steps, select="last", validate_every=0)
    config.finetune.optim = c.optim(lr=3e-5, weight_decay=0.1, warmup_steps=steps // DOWNSTREAM_EPOCHS)
    return config
