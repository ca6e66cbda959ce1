"""When does MASD + WiSE-FT help? The quickstart's world with pretraining that aligns the modalities more or less.

    mmr run --config=configs/when_masd_helps.py --workdir=runs/when

25 min on 2 cores that had other work to do as well: nine studies of one seed. Expect R(MASD + WiSE-FT) / R(fine-tuning)
near 1.5 where pretraining hardly aligned the modalities (50 and 150 steps), 1.03 to 1.08 where it did; sweep.csv and
sweep.png in the workdir, docs/findings.md for what it means.
"""

from pathlib import Path

from mmr_jax import config as c

POINTS = (
    ("pretraining steps", 50, (("pretrain.steps", 50),)),
    ("pretraining steps", 150, (("pretrain.steps", 150),)),
    ("pretraining steps", 400, ()),
    ("pretraining steps", 1000, (("pretrain.steps", 1000),)),
    ("unlabelled examples", 512, (("data.unlabelled", 512),)),
    ("unlabelled examples", 1500, (("data.unlabelled", 1500),)),
    ("modalities", "weak audio", (("data.audio_noise", 0.9), ("data.audio_jitter", 0.9))),
    ("modalities", "clear video", (("data.video_noise", 0.0), ("data.video_jitter", 0.0))),
    ("modalities", "telling text", (("data.caption_names_class", 0.7),)),
)


def get_config():
    config = c.load(Path(__file__).with_name("quickstart.py"))
    config.name = "when_masd_helps"
    config.data.seed = 2
    config.seeds = (4,)
    config.study.methods = ("linear_probe", "finetune", "masd", "masd_wise_ft")
    config.wise_ft.alphas = (0.75,)
    config.sweep = POINTS
    return config
