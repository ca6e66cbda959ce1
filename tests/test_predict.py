"""Exported predictions equal the model's own, for any subset of modalities; bad input is one clear line."""

import json
import subprocess
import sys
import wave

import jax
import numpy as np
import pytest

import mmr_jax
from mmr_jax import config as configs
from mmr_jax.cli.predict import _inputs
from mmr_jax.data.source import take
from mmr_jax.errors import UserError
from mmr_jax.export import export_model, publish
from mmr_jax.models.model import cut
from mmr_jax.prediction import load
from mmr_jax.study import Study

SMALL = {"model.width": 16, "model.depth": 2, "model.heads": 2, "model.mlp_dim": 32, "model.projection.dim": 16}
SIZES = {f"data.{split}": 8 for split in ("unlabelled", "labelled", "val", "test")}
MODALITIES = {
    "audio": configs.spectrogram(samples=10240, frames=32, mels=64, hop_ms=20.0, patch_size=(8, 16)),
    "video": configs.video(frames=4, height=32, width=32, patch_size=(2, 8, 8)),
    "text": configs.text(length=48),
}


def make(workdir, changes, seed=0):
    """A study whose model has random parameters (the head too), and its export."""
    config = configs.base("synthetic", MODALITIES)
    for field, value in {**SMALL, **SIZES, **changes}.items():
        configs.set_field(config, field, value)
    study = Study(config, workdir)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda a: np.asarray(a), study.model.init(jax.random.key(seed)))
    params["head"]["kernel"] = rng.normal(size=params["head"]["kernel"].shape).astype(np.float32)
    facts = export_model(study, params, workdir, "model", method="masd", train="audio+text")
    publish(workdir, workdir / "model")
    assert facts["bytes"] > 0 and [p.name for p in workdir.iterdir() if p.name.startswith(".")] == []
    return study, params


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    return workdir, *make(workdir, {})


def own(study, params, batch, names):
    """Probabilities by the model itself, from the modalities in `names` alone."""
    module = study.model.bind(params)
    inputs, length, present = cut(batch, names)
    return jax.nn.softmax(module.classify(module.fuse(module.parts(inputs, length), present)))


@pytest.mark.parametrize("names", [["audio"], ["text", "video"], ["audio", "text", "video"]])
def test_any_subset_equals_the_model(exported, names):
    workdir, study, params = exported
    batch = take(study.dataset.splits["test"], range(3))
    given = {m: [batch["inputs"][m][i][: batch["length"][m][i]] for i in range(3)] for m in names}
    found = mmr_jax.predict(workdir, given)
    assert found.probabilities.shape == (3, 24) and found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities, own(study, params, batch, names), atol=2e-5)
    assert found.used == tuple(names) and found.classes == tuple(study.dataset.class_names)
    assert found.top[0] == (found.classes[found.probabilities[0].argmax()], pytest.approx(found.probabilities[0].max()))


@pytest.mark.parametrize(
    "changes",
    [
        {"model.fusion": "joint", "model.adapter_depth": 1, "model.class_token": True},
        {"model.adapter_depth": 0, "model.stream_norms": "shared", "model.pool": "cls", "model.class_token": True},
        {"model.dtype": "bfloat16", "model.scan_layers": False},
    ],
)
def test_every_architecture_exports(tmp_path, changes):
    study, params = make(tmp_path, changes)
    batch = take(study.dataset.splits["test"], range(2))
    given = {m: batch["inputs"][m] for m in ("audio", "video")}
    tolerance = 2e-2 if "model.dtype" in changes else 2e-5
    length = {"audio": np.full(2, 10240), "video": np.full(2, 4)}  # arrays carry no padding to tell apart
    expected = own(study, params, batch | {"length": length}, ["audio", "video"])
    np.testing.assert_allclose(load(tmp_path)(given).probabilities, expected, atol=tolerance)


def test_gaps_padding_and_large_batches(exported):
    predictor = load(exported[0])
    wave_ = np.random.default_rng(0).integers(-3000, 3000, 4000).astype(np.int16)
    alone = predictor({"audio": wave_}).probabilities
    mixed = predictor({"audio": [wave_, None, wave_], "text": [None, "a red square", None]})
    assert mixed.used == ("audio", "text")
    np.testing.assert_allclose(mixed.probabilities[[0, 2]], np.repeat(alone, 2, axis=0), atol=1e-5)
    many = predictor({"text": ["a red square"] * 300}).probabilities
    np.testing.assert_allclose(many, np.repeat(mixed.probabilities[1:2], 300, axis=0), atol=1e-5)
    np.testing.assert_allclose(predictor({"audio": wave_ / 32768.0}).probabilities, alone, atol=1e-6)


def test_long_input_is_cut_with_a_warning(exported):
    predictor = load(exported[0])
    wave_ = np.zeros(20000, np.int16)
    with pytest.warns(UserWarning, match="audio: cut from 20000 to 10240"):
        long = predictor({"audio": wave_}).probabilities
    np.testing.assert_array_equal(long, predictor({"audio": wave_[:10240]}).probabilities)
    with pytest.warns(UserWarning, match="text: the text is longer than 48"):
        predictor({"text": "x" * 60})


VIDEO = np.zeros((4, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    "given, line",
    [
        ({"adio": np.zeros(4000)}, "unknown modality 'adio'; did you mean 'audio'"),
        ({}, "no modality is given"),
        ({"audio": None}, "no modality is given"),
        ({"audio": [None, np.zeros(4000)]}, "example 0 has no modality"),
        ({"audio": np.zeros((2, 4000)), "text": ["a", "b", "c"]}, "audio has 2 examples, text has 3"),
        ({"video": VIDEO[0, 0]}, r"video: uint8 \[32, 3\]; expected uint8 frames \[n, 32, 32, 3\]"),
        ({"video": VIDEO[:, :16]}, r"video: uint8 \[4, 16, 32, 3\]; expected"),
        ({"video": VIDEO.astype(np.float32)}, r"video: float32 \[4, 32, 32, 3\]; expected uint8"),
        ({"audio": np.full(4000, np.nan)}, "audio: holds NaN"),
        ({"audio": np.full(4000, 300.0)}, "audio: float samples reach 300"),
        ({"audio": np.zeros(4000, np.int64)}, r"audio: int64 \[4000\]; expected int16"),
        ({"audio": np.zeros(0, np.int16)}, r"audio: int16 \[0\]; expected"),
        ({"audio": np.zeros((4000, 2), np.int16)}, "less than one window of 400"),
        ({"text": np.array([1, 999])}, "token ids reach from 1 to 999; known are 0..258"),
        ({"text": np.zeros(4, np.int32)}, r"text: int32 \[0\]; expected a string"),
        ({"text": []}, "text"),
    ],
)
def test_bad_input_is_one_line(exported, given, line):
    with pytest.raises(UserError, match=line) as caught:
        load(exported[0])(given)
    assert "\n" not in str(caught.value)


def test_absent_and_broken_exports(exported, tmp_path):
    with pytest.raises(UserError, match="holds no exported model"):
        mmr_jax.predict(tmp_path, {"text": "a"})
    source = exported[0] / "model"
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 1000 if file.name == "model.bin" else None])
    with pytest.raises(UserError, match="cannot be read"):
        mmr_jax.predict(tmp_path, {"text": "a"})
    card = json.loads((source / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(card | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        mmr_jax.predict(tmp_path, {"text": "a"})


def test_the_model_is_not_built_to_predict(exported):
    code = (
        "import sys, mmr_jax; assert 'jax' not in sys.modules\n"
        f"found = mmr_jax.predict({str(exported[0])!r}, {{'text': 'a red square'}})\n"
        "print(found.top[0]); assert 'flax' not in sys.modules and 'mmr_jax.models' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def write_wav(path, rate=16000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.tile(np.arange(800, dtype="<i2"), (channels, 1)).T.tobytes())


def test_files_of_the_command_line(exported, tmp_path):
    from PIL import Image

    specs = load(exported[0]).modalities | {"image": {"kind": "image", "shape": [8, 8, 1], "dtype": "uint8"}}
    write_wav(tmp_path / "clip.wav", channels=2)
    Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "digit.png")
    np.save(tmp_path / "clip.npy", VIDEO)
    files = {"audio": "clip.wav", "image": "digit.png", "video": "clip.npy"}
    with pytest.warns(UserWarning, match="was resized from 16 x 16 to 8 x 8"):
        found = _inputs([f"{m}={tmp_path / f}" for m, f in files.items()] + ["text=a = b"], specs)
    np.testing.assert_array_equal(found["audio"], np.arange(800, dtype=np.int16))
    assert found["image"].shape == (8, 8, 1) and found["video"].shape == VIDEO.shape and found["text"] == "a = b"


@pytest.mark.parametrize(
    "argument, line",
    [
        ("audio", "write --input=modality=file"),
        ("adio=clip.wav", "did you mean 'audio'"),
        ("audio=clip.mp3", "cannot read this kind of file"),
        ("audio=absent.wav", "does not exist"),
        ("audio=broken.wav", "cannot be read"),
        ("audio=fast.wav", "44100 samples per second, the model takes 16000"),
        ("video=fast.wav", "is sound; this modality takes video"),
    ],
)
def test_bad_arguments_are_one_line(exported, tmp_path, monkeypatch, argument, line):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "fast.wav", rate=44100)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=line):
        _inputs([argument], load(exported[0]).modalities)


def test_the_command(exported):
    command = [sys.executable, "-m", "mmr_jax", "predict", f"--workdir={exported[0]}"]
    done = subprocess.run([*command, "--input=text=a red square"], capture_output=True, text=True)
    assert done.returncode == 0 and "used: text; absent: audio, video" in done.stdout
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 2 and "no modality is given" in failed.stderr
