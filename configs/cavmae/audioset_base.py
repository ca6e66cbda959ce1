"""CAV-MAE base: pretraining on AudioSet-2M (Gong et al., ICLR 2023; released scripts of YuanGongND/cav-mae).

    mmr pretrain --config=configs/cavmae/audioset_base.py --workdir=runs/cavmae_base --config.pretrain.init=FOLDER

FOLDER holds the start, the self-supervised ImageNet MAE, as mmr convert writes it. The media: --config.data.folder=DIR,
which `mmr prepare --dataset=audioset --frames=10 --short_side=224` writes; without it --dry_run --shapes works. Not run
here, so there are no minutes to report. Expect (published log) after 25 epochs on evaluation clips: errors .521 audio,
.306 image, 79.8 % of the images find their sound among 12.

Paper and scripts differ: 12 epochs (`:paper`) against 25 (here). Read the published logs so: every loss is the sum over
4 GPUs (divide by 4), and each GPU contrasts its own 48 / 4 = 12 clips, nothing is gathered; here the whole batch is
contrasted, which is harder. The parser's default reconstruction weight is 3.0, the scripts give 1.0. Its warm-up is
never read. The learning rate halves at the ends of epochs 10, 15 and 20.
Ours: decay 5e-7 acts on kernels only (there on all), bfloat16 (there float16), an epoch is size // batch steps.

The paper's other models, as fields of config.pretrain: AV-MAE is contrastive_weight=0; CAV is reconstruction_weight=0;
vanilla AV-MAE is AV-MAE with mask_together=True and config.model.adapter_depth=0; direction=both contrasts both ways;
masking.{audio,image}.ratio and masking.audio.mode; norm_targets=False for reconstructions to look at.
"""

from mmr_jax import config as c
from mmr_jax.errors import UserError, nearest

EPOCHS = {"": 25, "paper": 12}
MEAN, STD = -5.081, 4.4849
AUDIO = dict(samples=160000, frames=1024, window="hann", mean=MEAN, std=STD, padding="input", fill=-MEAN / STD)
IMAGE = dict(frames=10, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
DECAY = (10, 15, 20)  # epochs


def get_config(argument=""):
    if argument not in EPOCHS:
        raise UserError(f"audioset_base.py has no variant {argument!r}{nearest(argument, EPOCHS)}")
    config = c.base("prepared", {"audio": c.spectrogram(**AUDIO), "image": c.image(**IMAGE)})
    config.name = "cavmae_audioset_base"
    both = "unbalanced + balanced"
    config.data.update(dataset="audioset", unlabelled=both, labelled="balanced", val="eval", test="eval")
    config.data.sizes.update(unlabelled=1772023, labelled=18691, test=17249)
    config.modalities.audio.augment.update(uniform_noise=0.1, roll=1024)
    config.model.update(size="B", adapter_depth=11, fusion="joint", norm_eps=1e-5, dtype="bfloat16")
    config.model.update(positions="sincos", modality_token=True, embedding="backbone", normalize="layer")
    config.model.projection.kind, config.model.attention = "none", "auto"
    recipe, epochs = config.pretrain, EPOCHS[argument]
    recipe.update(objective="masked", contrastive_weight=0.01, temperature=0.05, direction="backward")  # image queries
    recipe.decoder.update(width=512, depth=8, heads=16, mlp_dim=2048)
    recipe.update(batch_size=48, steps=epochs * (config.data.sizes.unlabelled // 48), init="weights/mae")
    recipe.update(log_every=100, checkpoint_every=2000)
    recipe.optim = c.optim(name="adam_l2", lr=5e-5, weight_decay=5e-7, b1=0.95, b2=0.999, clip=0.0)
    recipe.optim.update(schedule="multistep", decay_factor=0.5, decay_at=tuple(e / epochs for e in DECAY if e < epochs))
    config.study.update(methods=("linear_probe",), export="", eval_batch_size=64)
    return config
