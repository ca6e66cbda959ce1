"""A dry run prints sizes, takes real steps and writes nothing; on shapes alone it fits any model."""

import io
import re

import pytest
import toy
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.dry_run import branches, dry_run, plans, tokens
from mmr_jax.errors import UserError
from mmr_jax.study import Study

SMALL = {"model.width": 16, "model.depth": 2, "model.heads": 2, "model.mlp_dim": 32, "model.projection.dim": 16}
SIZES = {f"data.{split}": 16 for split in ("unlabelled", "labelled", "val", "test")}
BATCHES = {"pretrain.batch_size": 8, "finetune.batch_size": 8}


MODALITIES = {
    "audio": configs.spectrogram(samples=10240, frames=32, mels=64, hop_ms=20.0, patch_size=(8, 16)),
    "video": configs.video(frames=4, height=32, width=32, patch_size=(2, 8, 8)),
    "text": configs.text(length=48),
}


def make(workdir, changes, modalities=MODALITIES) -> Study:
    config = configs.base("synthetic", modalities)
    for field, value in changes.items():
        configs.set_field(config, field, value)
    return Study(config, workdir)


def told(study, **options) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    dry_run(study, console=console, **options)
    return console.file.getvalue()


def test_real_steps_and_nothing_written(tmp_path):
    study = make(tmp_path, {**SMALL, **SIZES, **BATCHES})
    text = told(study)
    for expected in ("devices:", "mesh: data", "unlabelled", "pretrain", "evaluate", "two real steps", "total"):
        assert expected in text
    steps = text[text.index("two real steps") :]
    rows = [line for line in steps.splitlines() if "seed0/" in line]
    assert len(rows) == 2 and "masd" in rows[1]
    assert all(len(re.findall(r"\d+\.\d+", row)) == 5 for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_branches_add_up_and_tokens_are_counted(tmp_path):
    study = make(tmp_path, {**SMALL, **SIZES, "model.adapter_depth": 1})
    sizes = branches(study)
    assert set(sizes) == {"audio", "text", "video", "shared", "projections", "head"}
    assert sizes["head"] == 16 * 24 + 24 and sizes["projections"] == 3 * 16 * 16
    assert tokens(study) == {"audio": 16, "text": 48, "video": 32}


def test_without_a_trained_method_only_pretraining_is_planned(tmp_path):
    study = make(tmp_path, {**SMALL, **SIZES, "study.methods": ("linear_probe",), "study.export": ""})
    assert [p.name.split("/")[-1] for p in plans(study)] == ["pretrain"]


def test_pretraining_of_no_steps_is_not_planned(tmp_path):
    study = make(tmp_path, {**SMALL, **SIZES, **BATCHES, "pretrain.steps": 0})
    assert [p.name.split("/")[2] for p in plans(study)] == ["masd"]


MASKED = {"pretrain.objective": "masked", "pretrain.masking.text.ratio": 0.5, "study.methods": ("linear_probe",)}
TOGETHER = {"pretrain.mask_together": True, "model.adapter_depth": 0, "pretrain.masking.audio.ratio": 0.9}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"model.adapter_depth": 1}, ["audio 4 of 16", "text 24 of 48", "video 8 of 32"]),
        # the class token is never masked
        ({"model.class_token": True}, ["audio 5 of 17", "text 25 of 49", "video 9 of 33"]),
        (TOGETHER, ["audio+text+video 9 of 96"]),
    ],
)
def test_visible_tokens_of_masked_pretraining(tmp_path, changes, expected):
    text = told(make(tmp_path, {**SMALL, **SIZES, **MASKED, **changes, "study.export": ""}), shapes_only=True)
    assert re.findall(r"[a-z+]+ \d+ of \d+", text) == expected


def test_shapes_alone_open_no_source(tmp_path, monkeypatch):
    """Balanced sampling reads the labels when it is made."""
    monkeypatch.setattr("mmr_jax.data.balanced.classes_of", lambda *_: pytest.fail("labels are read"))
    changes = {"finetune.balanced": True, "study.methods": ("finetune",), "study.export": ""}
    study = make(tmp_path, {**SMALL, **SIZES, **BATCHES, **changes})
    assert "finetune/audio" in told(study, shapes_only=True)


def test_shapes_need_no_weights(tmp_path):
    study = make(tmp_path, {**SMALL, **SIZES, **BATCHES, "pretrain.init": str(tmp_path / "absent")})
    assert "masd/audio" in told(study, shapes_only=True)
    with pytest.raises(UserError, match="holds no converted weights"):
        told(study)


def test_shapes_depend_on_no_device(tmp_path):
    """Neither the batch nor the mesh fits the eight devices of the tests."""
    changes = {**SMALL, **SIZES, "pretrain.batch_size": 9, "finetune.batch_size": 7, "mesh.fsdp": 64}
    text = told(make(tmp_path, changes), shapes_only=True)
    assert re.search(r"pretrain\s+│ 600\s+│ 9 ", text) and "mesh: data 1, fsdp 1" in text


def test_announced_data_ends_a_real_dry_run_with_one_line(tmp_path):
    config = configs.base("prepared", MODALITIES)
    sizes = {f"data.sizes.{split}": 16 for split in ("unlabelled", "labelled", "test")}
    for field, value in {**SMALL, **BATCHES, **sizes, "data.dataset": "kinetics400"}.items():
        configs.set_field(config, field, value)
    study = Study(config, tmp_path)
    assert "kinetics400" in told(study, shapes_only=True)
    with pytest.raises(UserError, match="data.folder is empty: Kinetics-400"):
        told(study)


def test_the_flag_goes_with_a_dry_run(tmp_path):
    command = ("-m", "mmr_jax", "run", "--config=tests/toy.py", "--shapes")
    alone, together = toy.run(*command), toy.run(*command, "--dry_run", f"--workdir={tmp_path}")
    message = alone.communicate()[1]
    assert (alone.returncode, message.count("\n")) == (2, 1) and "--dry_run" in message
    text = together.communicate()[0]
    assert together.returncode == 0 and "GFLOP" in text and "two real steps" not in text
    assert list(tmp_path.iterdir()) == []


def test_full_size_on_shapes_alone(tmp_path, monkeypatch):
    large = {"model.width": 1024, "model.depth": 2, "model.heads": 16, "model.mlp_dim": 4096}
    full = {"audio": configs.spectrogram(), "video": configs.video(), "text": configs.text()}
    monkeypatch.setattr("mmr_jax.data.pipeline.take", lambda *_: pytest.fail("no data is read"))
    text = told(make(tmp_path, large, full), shapes_only=True)
    total = int(re.search(r"total\D+([\d,]+)", text)[1].replace(",", ""))
    assert total > 3 * 2 * 12 * 1024**2  # the kernels of three encoders
    assert "two real steps" not in text and list(tmp_path.iterdir()) == []
