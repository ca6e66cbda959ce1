"""A study starts from converted published weights, in place of pretraining or before it."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mmr_jax import config as configs
from mmr_jax import methods, tree
from mmr_jax.errors import UserError
from mmr_jax.initial import start_from_weights
from mmr_jax.stages import load_params
from mmr_jax.study import Study
from mmr_jax.weights import from_published, save_converted

sys.path.insert(0, str(Path(__file__).with_name("weights")))
import published  # noqa: E402

SMALL = {"model.width": 24, "model.depth": 3, "model.heads": 2, "model.mlp_dim": 96, "model.adapter_depth": 2}
STYLE = {"model.positions": "sincos", "model.modality_token": True, "model.projection.kind": "none"}
STYLE |= {"model.embedding": "backbone", "model.norm_eps": 1e-5, "pretrain.objective": "masked"}
STYLE |= {"pretrain.decoder.width": 16, "pretrain.decoder.depth": 1, "pretrain.decoder.mlp_dim": 64}
SIZES = {f"data.{split}": 8 for split in ("unlabelled", "labelled", "val", "test")} | {"study.eval_batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CAV-MAE of width 24 with 2 + 1 blocks, for 4 x 8 patches of sound and 4 x 4 of an image."""
    names = published.cavmae(width=24, wide=16, depth=2, deep=1, times=4, side=4)
    path = tmp_path_factory.mktemp("weights") / "cavmae"
    save_converted(from_published("cavmae", published.filled(names), heads=2, decoder_heads=4), path)
    return path


def config(folder, **changes):
    audio = configs.spectrogram(samples=10000, frames=64, mels=128)
    made = configs.base("synthetic", {"audio": audio, "image": configs.image(height=64, width=64)})
    for key, value in {**SMALL, **STYLE, **SIZES, "pretrain.init": str(folder), **changes}.items():
        configs.set_field(made, key, value)
    return made


def started(made):
    """({path: array} that pretraining starts from, the account)."""
    objective = methods.pretraining(made, Study(made, ".").model, ("audio", "image"))
    params, account = start_from_weights(made, objective.init(jax.random.key(0))[0])
    return tree.flatten(params), account


def test_a_study_without_pretraining_keeps_the_weights_bit_for_bit(folder, tmp_path):
    study = Study(config(folder, **{"pretrain.steps": 0}), tmp_path)
    study.run(kinds=("pretrain",))
    (stage,) = study.select(("pretrain",))
    kept = tree.flatten(load_params(study.path(stage) / "params"))
    kept |= tree.flatten(load_params(study.path(stage) / "pretraining"))
    given = published.filled(published.cavmae(width=24, wide=16, depth=2, deep=1, times=4, side=4))
    kernel = kept["encoder/owned/image/layers/attention/qkv/kernel"][1]
    np.testing.assert_array_equal(kernel, given["blocks_v.1.attn.qkv.weight"].T)
    np.testing.assert_array_equal(kept["encoder/norms/joint/scale"], given["norm.weight"])
    np.testing.assert_array_equal(kept["decoder/mask_token"], given["mask_token"][0])
    account = study.record(stage)["weights"]
    assert account["used"] > 50 and account["resized"] == account["dropped"] == 0
    assert account["fresh"] == 2  # the head's kernel and bias


def test_another_input_size_resizes_the_positions(folder):
    found, account = started(config(folder, **{"modalities.audio.frames": 96}))
    assert account["resized"] == 2  # of the encoder and of the decoder
    assert found["encoder/tokenizers/audio/position"].shape == (6 * 8, 24)


def test_a_modality_may_take_the_weights_of_another(folder):
    """Two views from the one image encoder; a colour kernel is summed for a spectrogram."""
    found = started(config(folder, **{"pretrain.init_from.audio": "image"}))[0]
    for path in ("encoder/owned/{}/layers/norms/{}/mlp/scale", "encoder/norms/{}/bias"):
        np.testing.assert_array_equal(*(found[path.format(m, m)] for m in ("audio", "image")))
    kernels = [np.asarray(found[f"encoder/tokenizers/{m}/embed/kernel"]) for m in ("audio", "image")]
    np.testing.assert_allclose(kernels[0], kernels[1].reshape(256, 3, -1).sum(axis=1), rtol=1e-5)


def test_a_modality_may_take_nobodys_weights(folder):
    found, _ = started(config(folder, **{"pretrain.init_from.audio": ""}))
    fresh, _ = started(config("", **{"pretrain.init_from.audio": ""}))
    for path in found:
        own = "audio" in path.split("/")
        taken = not np.array_equal(found[path], fresh[path])
        assert taken != (own or path.startswith("head/")), path


def test_the_stage_depends_on_the_content_of_the_weights(folder, tmp_path):
    first = {s.kind: s.key for s in Study(config(folder), tmp_path).stages()}
    other = tmp_path / "other"
    names = published.cavmae(width=24, wide=16, depth=2, deep=1, times=4, side=4)
    save_converted(from_published("cavmae", published.filled(names, seed=1), heads=2, decoder_heads=4), other)
    second = {s.kind: s.key for s in Study(config(other), tmp_path).stages()}
    assert first["pretrain"] != second["pretrain"]


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="mmr convert"):
        Study(config(tmp_path / "nothing"), tmp_path).ready()
