"""A dry run prints sizes, takes real steps and writes nothing; on shapes alone it fits any model."""

import io
import re

import pytest
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.dry_run import branches, dry_run, plans, tokens
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


def test_full_size_on_shapes_alone(tmp_path, monkeypatch):
    large = {"model.width": 1024, "model.depth": 2, "model.heads": 16, "model.mlp_dim": 4096}
    full = {"audio": configs.spectrogram(), "video": configs.video(), "text": configs.text()}
    monkeypatch.setattr("mmr_jax.data.pipeline.take", lambda *_: pytest.fail("no data is read"))
    text = told(make(tmp_path, large, full), shapes_only=True)
    total = int(re.search(r"total\D+([\d,]+)", text)[1].replace(",", ""))
    assert total > 3 * 2 * 12 * 1024**2  # the kernels of three encoders
    assert "two real steps" not in text and list(tmp_path.iterdir()) == []
