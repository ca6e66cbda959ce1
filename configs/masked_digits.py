"""MAE, CAV and CAV-MAE beside the contrastive model on spoken and written digits, three seeds, one report.

    mmr run --config=configs/masked_digits.py --workdir=runs/masked_digits --config.data.root=FOLDER

FOLDER as in configs/digits.py. 55 min on 2 cores that had other work to do as well. Expect P in Transfer, fine-tuning
and MASD: 47.6 and 59.4 % contrastive, 46.0 and 54.3 % CAV, 21.4 and 27.9 % CAV-MAE, 10.3 (chance) and 19.1 % MAE;
report/ in the workdir has all four side by side, docs/findings.md what it means.
"""

from pathlib import Path

from mmr_jax import config as c

# One shape for the three: the last block is shared by the modalities, and what Eq. 7 averages is its pooled stream.
FAMILY = (
    ("model.adapter_depth", 2),
    ("model.projection.kind", "none"),
    ("model.embedding", "backbone"),
    ("model.positions", "sincos"),
    ("model.modality_token", True),
    ("pretrain.objective", "masked"),
)


def masked(ratio):
    """One mask ratio for both modalities, as changes to a config."""
    return tuple((f"pretrain.masking.{m}.ratio", ratio) for m in ("audio", "image"))


POINTS = {
    "contrastive": (),
    # the joint stream trains the norms that the single streams use later
    "mae": (*FAMILY, *masked(0.75), ("model.stream_norms", "shared")),
    "cav": (*FAMILY, *masked(0.0), ("pretrain.reconstruction_weight", 0.0), ("pretrain.contrastive_weight", 1.0)),
    "cavmae": (*FAMILY, *masked(0.5), ("pretrain.contrastive_weight", 1.0)),
}


def get_config():
    config = c.load(Path(__file__).with_name("digits.py"))
    config.name = "masked_digits"
    config.seeds = (0, 1, 2)
    config.pretrain.steps = 500
    config.finetune.steps = 120
    config.finetune.validate_every = 40
    config.study.methods = ("linear_probe", "finetune", "masd", "wise_ft", "masd_wise_ft")
    config.study.test_splits = ("test",)
    config.wise_ft.alphas = (0.75,)
    config.sweep = tuple(("pretraining", label, changes) for label, changes in POINTS.items())
    return config
