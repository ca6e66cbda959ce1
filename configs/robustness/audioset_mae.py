"""Audio, video and titles of AudioSet, masked pretraining (McKinzie et al., ICML 2023).

    mmr run --config=configs/robustness/audioset_mae.py --workdir=runs/mae

The media: --config.data.folder=DIR, see audioset_contrastive.py. Not run here, so there are no minutes to report.
Expect (paper) Transfer to collapse and Missing to lose more R than with contrastive pretraining; MASD makes the full
set of modalities the best to evaluate on from all six M_T, where without it a proper subset is in five of six.

Paper: the AV-MAE of the CAV-MAE paper with text added, ViT-B/16, the last layer shared by the modalities; batch 1024,
AdamW, lr 8e-4, 256 epochs; Eq. 7 averages the encoders. The rest of the recipe is as in audioset_contrastive.py.
Ours, where the paper says nothing: one set of norms in the shared layer; 75 % of each modality masked at random, titles
too; CAV-MAE's decoder, pixels normalised by patch; titles as bytes, 101 at most (a title has up to 100 characters);
learned positions; start at random; betas .9 and .95, decay 0.05, no clipping, warm-up over a twentieth of the steps,
cosine; downstream lr 5e-5; and the video, front end, probe and downstream choices of audioset_contrastive.py.
"""

from pathlib import Path

from mmr_jax import config as c

EPOCHS = 256


def get_config():
    start = c.load(Path(__file__).with_name("audioset_contrastive.py"))
    modalities = {**start.modalities, "text": c.text(length=103)}
    config = c.base("prepared", modalities)
    config.name = "audioset_mae"
    config.data, config.probe, config.finetune, config.masd = start.data, start.probe, start.finetune, start.masd
    config.finetune.optim.lr = 5e-5
    config.model.update(size="B", adapter_depth=11, stream_norms="shared", embedding="backbone", dtype="bfloat16")
    config.model.update(modality_token=True)
    config.model.projection.kind = "none"
    recipe = config.pretrain
    steps = EPOCHS * (config.data.sizes.unlabelled // 1024)
    recipe.update(objective="masked", batch_size=1024, steps=steps, log_every=100, checkpoint_every=1000)
    recipe.decoder.update(width=512, depth=8, heads=16, mlp_dim=2048)
    recipe.optim = c.optim(lr=8e-4, b1=0.9, b2=0.95, clip=0.0, warmup_steps=steps // 20)
    return config
