"""Every config file loads, passes the checks, and its study is built; the published recipes are as published."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.dry_run import dry_run
from mmr_jax.errors import UserError
from mmr_jax.study import Study
from mmr_jax.sweep import points
from mmr_jax.train.optim import learning_rate
from mmr_jax.weights.folder import PARAMS

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.py"))
FULL_SIZE = [p for p in FILES if p.parent.name in ("cavmae", "robustness")]
QUICK = (
    "audioset_base",
    "imagenet_captions",
)  # of the full-size ones, those that are built and dry-run in the quick tests
VARIANTS = ("paper", "++", "audio", "image", "pretrain", "again", "base_text", "mae")
AS2M, AS20K, VGGSOUND = 1_772_023, 18_691, 183_727


def toy(path: Path, folder: Path):
    """The config with a tiny synthetic or real data set, and weights to start from; nothing else changes."""
    changes = {"data.unlabelled": 8, "data.labelled": 8, "data.val": 8, "data.test": 8}
    config = configs.load(path)
    config = configs.load(path, changes if config.data.name == "synthetic" else {})
    if config.pretrain.init:  # the stages are named by the content of its file, which nobody reads here
        (folder / "weights").mkdir()
        (folder / "weights" / PARAMS).write_bytes(b"content")
        config.pretrain.init = str(folder / "weights")
    return config


def cavmae(name: str):
    return configs.load(ROOT / "configs/cavmae" / name)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_header_states_command_time_and_result(path):
    header = path.read_text().split('"""')[1]
    assert f"--config={path.relative_to(ROOT).as_posix()}" in header
    assert "min" in header and "Expect" in header


def full_size():
    """The full-size files; those of most take long enough to be left out of the quick tests."""
    return [pytest.param(p, id=p.stem, marks=[] if p.stem in QUICK else pytest.mark.slow) for p in FULL_SIZE]


SMALL = [pytest.param(p, id=p.stem) for p in FILES if p not in FULL_SIZE]


@pytest.mark.parametrize("path", [*SMALL, *full_size()])
def test_study_is_built(path, tmp_path):
    config = toy(path, tmp_path)
    study = Study(config, tmp_path)
    try:
        stages = study.stages()
    except UserError as error:
        if config.data.name in ("avdigits", "prepared") and "data" in str(error):
            pytest.skip(f"no data for {path.name}: {error}")
        raise
    names = [s.name for s in stages]
    assert len(names) == len(set(names)) and len({s.key for s in stages}) == len(stages)
    for stage in stages:  # in order: each after those it needs
        assert all(names.index(n.name) < names.index(stage.name) for n in stage.needs)
    seen = {s.method for s in stages if s.kind == "evaluate"}
    assert seen == set(config.study.methods)
    assert set(study.model.names) == set(config.modalities)


def test_sweep_points_differ_only_where_they_say(tmp_path):
    config = toy(ROOT / "configs/when_masd_helps.py", tmp_path)
    base = configs.to_dict(config)
    found = {(point.axis, point.label): point.study for point in points(config, tmp_path, {})}
    assert len(found) == len(config.sweep) >= 5
    for axis, label, changes in config.sweep:
        changed = configs.difference(configs.to_dict(found[axis, str(label)].config), base)
        assert set(changed) - {"sweep"} <= {name for name, _ in changes}


# ---- the published recipes


def variants(path: Path) -> list[str]:
    found = [
        v for v in (":paper", ":++", ":audio", ":image", ":pretrain", ":again", ":base_text", ":mae") if loads(path, v)
    ]
    return [str(path), *[f"{path}{v}" for v in found]]


def loads(path: Path, variant: str) -> bool:
    try:
        return configs.load(f"{path}:{variant}") is not None
    except (UserError, TypeError):  # a TypeError: the file has no variants at all
        return False


@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda p: p.stem)
def test_published_recipes_set_known_fields_alone(path, tmp_path):
    """A field that `base` does not have would be read by nobody; and every variant passes the checks."""
    for variant in variants(path):
        config = configs.load(variant)
        known = configs.base("prepared", config.modalities)
        found, allowed = configs.flatten(config), configs.flatten(known)
        assert {k for k in found if not k.startswith("model.overrides.")} == allowed.keys()
        Study(config, tmp_path)


@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda p: p.stem)
def test_an_unknown_variant_is_refused(path):
    with pytest.raises((UserError, TypeError), match="no variant 'papre'|takes 0 positional"):
        configs.load(f"{path}:papre")


def check_schedule(recipe, examples: int, epochs: int, batch: int, lr: float, halved: list[int]) -> None:
    """The rate of each epoch's first and last step, halved at the ends of the epochs in `halved`."""
    epoch = examples // batch
    assert (recipe.batch_size, recipe.steps) == (batch, epochs * epoch)
    rate = learning_rate(configs.freeze(recipe.optim), recipe.steps)
    for i in range(epochs):
        expected = lr * 0.5 ** sum(end <= i for end in halved)
        assert [float(rate(i * epoch)), float(rate((i + 1) * epoch - 1))] == pytest.approx([expected] * 2, rel=1e-5)
    optim = recipe.optim
    assert (optim.name, optim.weight_decay, optim.b1, optim.b2, optim.eps) == ("adam_l2", 5e-7, 0.95, 0.999, 1e-8)
    assert (optim.clip, optim.warmup_steps, recipe.ema) == (0, 0, 0)


@pytest.mark.parametrize(
    "name, examples, epochs, batch, lr, start",
    [
        ("audioset_base.py", AS2M, 25, 48, 5e-5, "mae"),
        ("audioset_base.py:paper", AS2M, 12, 48, 5e-5, "mae"),
        ("audioset_scale.py", AS2M, 25, 120, 1e-4, "mae"),
        ("audioset_scale.py:paper", AS2M, 25, 108, 1e-4, "mae"),
        ("audioset_scale.py:++", AS2M, 25, 256, 2e-4, "mae"),
        ("vggsound.py:pretrain", VGGSOUND, 25, 120, 1e-4, "mae"),
        ("vggsound.py:again", VGGSOUND, 10, 120, 5e-5, "cavmae"),
    ],
)
def test_cavmae_pretraining_as_published(name, examples, epochs, batch, lr, start):
    config = cavmae(name)
    assert config.data.sizes.unlabelled == examples and config.pretrain.init == f"weights/{start}"
    check_schedule(config.pretrain, examples, epochs, batch, lr, halved=list(range(10, 100, 5)))
    augment = config.modalities.audio.augment
    assert (augment.mel_mask, augment.time_mask, augment.uniform_noise, augment.roll) == (0, 0, 0.1, 1024)
    assert config.modalities.audio.fill == pytest.approx(1.13291, abs=1e-5)


@pytest.mark.parametrize(
    "name, examples, epochs, batch, lr, head, first, balanced, average_from",
    [
        ("audioset20k.py", AS20K, 15, 36, 5e-5, 100, 5, False, 3),
        ("audioset2m.py", AS2M, 10, 48, 1e-5, 50, 2, True, 1),
        ("vggsound.py", VGGSOUND, 10, 48, 1e-4, 10, 2, True, 3),
    ],
)
@pytest.mark.parametrize("mode", ["", ":audio", ":image"])
def test_cavmae_finetuning_as_published(name, examples, epochs, batch, lr, head, first, balanced, average_from, mode):
    config = cavmae(f"{name}{mode}")
    recipe, epoch = config.finetune, examples // batch
    assert config.data.sizes.labelled == examples
    check_schedule(recipe, examples, epochs, batch, lr, halved=list(range(first, epochs)))
    assert [factor for _, factor in recipe.optim.groups] == [head]
    assert (recipe.balanced, recipe.mixup, recipe.mixup_alpha, recipe.label_smoothing) == (balanced, 0.5, 10, 0.1)
    assert (recipe.average_every, recipe.average_from) == (epoch, average_from * epoch)
    assert recipe.steps % epoch == 0 and recipe.select == "last"  # the last epoch is part of the mean
    augment = config.modalities.audio.augment
    assert (augment.mel_mask, augment.time_mask, augment.uniform_noise, augment.roll) == (48, 192, 0.1, 1024)
    assert config.study.train_subsets == (mode[1:] or "audio+image",) and config.pretrain.steps == 0


def test_robustness_recipes_as_published():
    load = {p.stem: configs.load(p) for p in FULL_SIZE if p.parent.name == "robustness"}
    for name, epochs in (("audioset_contrastive", 32), ("audioset_mae", 256)):
        recipe = load[name].pretrain
        assert (recipe.batch_size, recipe.optim.name, recipe.optim.lr) == (1024, "adamw", 8e-4)
        assert recipe.steps == epochs * (1_743_790 // 1024)
        assert (load[name].data.sizes.labelled, load[name].data.sizes.test) == (18_649, 17_065)
    for config in load.values():
        assert config.wise_ft.alpha == 0.75 and len(config.study.methods) == 6 and config.study.train_subsets == ()
        if "audio" in config.modalities:
            audio = config.modalities.audio
            assert (audio.samples, audio.frames, audio.mels, audio.window) == (8 * 16000, 800, 128, "hamming")
    assert load["audioset_mae"].model.adapter_depth == 11 and load["audioset_contrastive"].model.adapter_depth == -1
    assert set(load["kinetics"].modalities) == {"audio", "video"}
    assert (load["kinetics"].data.sizes.labelled, load["kinetics"].data.sizes.test) == (246_245, 40_000)
    assert (load["imagenet_captions"].data.sizes.labelled, load["imagenet_captions"].data.sizes.test) == (
        359_116,
        89_779,
    )


@pytest.mark.parametrize("path", full_size())
def test_dry_run_on_shapes_alone(path, tmp_path, monkeypatch):
    for read in ("take", "draw"):
        monkeypatch.setattr(f"mmr_jax.data.pipeline.{read}", lambda *_: pytest.fail("no data is read"))
    config = configs.load(path)
    console = Console(file=io.StringIO(), width=160, highlight=False)
    dry_run(Study(config, tmp_path), shapes_only=True, console=console)
    rows = [line for line in console.file.getvalue().splitlines() if "│ seed0/" in line]
    trained = set(config.study.methods) - {"linear_probe"}
    assert len(rows) == bool(config.pretrain.steps) + bool(trained)
    for row in rows:
        recipe = config.pretrain if "/pretrain " in row else config.finetune
        steps, batch, _, mebibytes, gflop = [cell.strip() for cell in row.split("│")[2:-1]]
        assert (steps, batch) == (f"{recipe.steps:,}", str(recipe.batch_size))
        assert float(mebibytes) > 1000 and 50 < float(gflop) < 2000
    assert list(tmp_path.iterdir()) == []
