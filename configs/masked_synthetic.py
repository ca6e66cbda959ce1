"""MAE, CAV and CAV-MAE beside the contrastive model on the quickstart's world, three seeds, one report.

    mmr run --config=configs/masked_synthetic.py --workdir=runs/masked_synthetic

44 min on 2 cores that had other work to do as well. Expect P in Transfer, fine-tuning and MASD: 19.8 and 23.4 %
contrastive, 13.6 and 14.3 % CAV, 7.7 and 9.6 % CAV-MAE, 4.2 (chance) and 5.1 % MAE; report/ in the workdir has all
four side by side, docs/findings.md what it means.
"""

from pathlib import Path

from mmr_jax import config as c

# One shape for the three: the last block is shared by the modalities, and what Eq. 7 averages is its pooled stream.
FAMILY = (
    ("model.adapter_depth", 1),
    ("model.projection.kind", "none"),
    ("model.embedding", "backbone"),
    ("model.positions", "sincos"),
    ("model.modality_token", True),
    ("pretrain.objective", "masked"),
)
MODALITIES = ("audio", "video", "text")


def masked(*ratios):
    """The mask ratios of `MODALITIES` as changes to a config."""
    return tuple((f"pretrain.masking.{m}.ratio", ratio) for m, ratio in zip(MODALITIES, ratios, strict=True))


POINTS = {
    "contrastive": (),
    # the joint stream trains the norms that the single streams use later
    "mae": (*FAMILY, *masked(0.75, 0.75, 0.5), ("model.stream_norms", "shared")),
    "cav": (
        *(*FAMILY, *masked(0.0, 0.0, 0.0)),
        ("pretrain.reconstruction_weight", 0.0),
        ("pretrain.contrastive_weight", 1.0),
    ),
    "cavmae": (*FAMILY, *masked(0.5, 0.5, 0.25), ("pretrain.contrastive_weight", 1.0)),
}


def get_config():
    config = c.load(Path(__file__).with_name("quickstart.py"))
    config.name = "masked_synthetic"
    config.data.seed = 3
    config.seeds = (0, 1, 2)
    config.study.methods = ("linear_probe", "finetune", "masd", "wise_ft", "masd_wise_ft")
    config.finetune.steps = 80
    config.finetune.validate_every = 40
    config.study.train_subsets = ("audio", "text", "video", "audio+text+video")
    config.wise_ft.alphas = (0.75,)
    config.sweep = tuple(("pretraining", label, changes) for label, changes in POINTS.items())
    return config
