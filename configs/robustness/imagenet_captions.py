"""ImageNet-Captions with CLIP's own towers (McKinzie et al., ICML 2023): pictures and their Flickr captions.

    mmr run --config=configs/robustness/imagenet_captions.py --workdir=runs/captions --config.pretrain.init=FOLDER

FOLDER holds OpenAI's CLIP ViT-B/16 as mmr convert writes it; the paper pretrains nothing here, nor does this. The
media: --config.data.folder=DIR, which `mmr prepare --dataset=imagenet_captions` writes;
--config.modalities.text.vocab=FILE is CLIP's bpe_simple_vocab_16e6.txt.gz. Without them --dry_run --shapes works. Not
run here, so there are no minutes to report. Expect (paper) MASD to raise P and R, most in Added and Transfer, WiSE-FT
to repair Missing; the cells of its tables are not known to us. Paper: 999 classes, 448,896 pairs split at random,
359,116 to train and 89,779 to evaluate.

Ours, where the paper says nothing: D_SD is a random fifth of the training pairs, the other four fifths keep their
labels (the paper's second way on Kinetics); both towers meet in CLIP's joint space of 512 (their widths differ);
downstream batch 512, lr 3e-5, decay 0.1, 500 warm-up steps, cosine, 10 epochs, clip 1 are those of WiSE-FT's README;
the linear probe's recipe; the last step is kept; 224 pixels are cut from pictures of 256, at random in training.
"""

from mmr_jax import config as c

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEXT_TOWER = dict(width=512, heads=8, mlp_dim=2048, causal=True, pool="last", class_token=False, pre_norm=False)
EPOCHS, BATCH = 10, 512


def get_config():
    image = c.image(mean=CLIP_MEAN, std=CLIP_STD, stored=256)
    text = c.text(tokenizer="clip", vocab="weights/bpe_simple_vocab_16e6.txt.gz")
    config = c.base("prepared", {"image": image, "text": text})
    config.name = "imagenet_captions"
    config.data.update(dataset="imagenet_captions", val="test")
    config.data.sizes.update(unlabelled=359116, labelled=359116, test=89779)
    config.model.update(size="B", norm_eps=1e-5, activation="quick_gelu", dtype="bfloat16")
    config.model.update(class_token=True, pool="cls", pre_norm=True, patch_bias=False)
    config.model.overrides.text = dict(TEXT_TOWER)
    config.model.projection.dim = 512
    config.pretrain.update(steps=0, init="weights/clip")
    config.masd.source = "train"
    config.probe.update(batch_size=1024, steps=2000)
    epoch = round((1 - config.masd.train_share) * config.data.sizes.labelled) // BATCH
    config.finetune.update(batch_size=BATCH, steps=EPOCHS * epoch, select="last", validate_every=0)
    config.finetune.optim = c.optim(lr=3e-5, weight_decay=0.1, b2=0.999, warmup_steps=500)
    return config
