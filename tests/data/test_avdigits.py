import csv
import gzip
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest

from mmr_jax.data import avdigits_builder, avdigits_download
from mmr_jax.data import avdigits_raw as raw
from mmr_jax.data.source import load_dataset
from mmr_jax.errors import UserError

REAL = Path(os.environ.get("MMR_DATA") or Path(__file__).parents[3] / "shared" / "data")
MODALITIES = {
    "audio": {"kind": "spectrogram", "sample_rate": 8000, "samples": 4096},
    "image": {"kind": "image", "height": 28, "width": 28, "channels": 1},
}


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), 1))


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, raw.RATE, 0, "NONE", ""))
        file.writeframes(np.asarray(samples, "<i2").tobytes())


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """A root of the real layout with made-up content: 3000 short clips, 3000 + 400 images."""
    root, rng = tmp_path_factory.mktemp("root"), np.random.default_rng(0)
    (root / "fsdd" / "recordings").mkdir(parents=True)
    (root / "mnist").mkdir()
    for k, name in enumerate(raw.clip_names()):
        write_wav(root / raw.RECORDINGS / f"{name}.wav", [k, -k, *range(k % 7)])
    for which, count in (("train", 3000), ("test", 400)):
        write_idx(root / "mnist" / raw.LABELS[which], (np.arange(count) % 10).astype(np.uint8))
        write_idx(root / "mnist" / raw.IMAGES[which], rng.integers(0, 256, (count, 28, 28), np.uint8))
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own(fake, tmp_path):
    """A copy of the fake root that a test may damage."""
    return Path(shutil.copytree(fake, tmp_path / "own"))


@pytest.fixture
def prepared(fake, cache, tmp_path):
    """A copy of the prepared fake data set, in a cache of its own, that a test may damage."""
    folder = avdigits_builder.prepare(fake, cache)
    shutil.copytree(folder, tmp_path / "prepared" / folder.name)
    return tmp_path / "prepared"


def load(root, cache, **config):
    config = {"name": "avdigits", "root": str(root), "cache_dir": str(cache), **config}
    return load_dataset(config, config.pop("modalities", MODALITIES))


def everything(source):
    return source.take(range(len(source)))


def test_splits_of_the_official_rule(fake, cache):
    data = load(fake, cache)
    assert {s: len(v) for s, v in data.splits.items()} == {
        "unlabelled": 2100,
        "labelled": 300,
        "val": 300,
        "test": 300,
        "mnist_test": 400,
    }
    assert data.class_names[3] == "three" and data.metric == "top1" and not data.multilabel
    labelled = everything(data.splits["labelled"])
    assert (np.bincount(labelled["label"]) == 30).all() and all(p.all() for p in labelled["present"].values())
    images = [everything(data.splits[s])["inputs"]["image"] for s in ("unlabelled", "labelled", "val", "test")]
    flat = np.concatenate([i.reshape(len(i), -1) for i in images])
    assert len(np.unique(flat, axis=0)) == 3000  # no image stands in two pairs


def test_choice_of_labelled_pairs(fake, cache):
    all_labelled = load(fake, cache, labelled=2400).splits
    assert len(all_labelled["labelled"]) == len(all_labelled["unlabelled"]) == 2400
    odd = everything(load(fake, cache, labelled=47).splits["labelled"])
    assert sorted(np.bincount(odd["label"])) == [4] * 3 + [5] * 7
    first, same, other = (
        everything(load(fake, cache, seed=s).splits["labelled"])["inputs"]["image"] for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    for count in (9, 2401):
        with pytest.raises(UserError, match=f"data.labelled is {count}"):
            load(fake, cache, labelled=count)


def test_talker_out(fake, cache):
    data = load(fake, cache, split="talker_out", talker="theo", labelled=2000)
    assert [len(data.splits[s]) for s in ("unlabelled", "labelled", "val", "test")] == [2000, 2000, 250, 500]
    test = everything(data.splits["test"])["inputs"]["image"].reshape(500, -1)
    train = everything(data.splits["labelled"])["inputs"]["image"].reshape(2000, -1)
    assert len(np.unique(np.concatenate([test, train]), axis=0)) == 2500
    mnist_test = everything(data.splits["mnist_test"])["inputs"]["image"].reshape(400, -1)
    assert len(np.unique(np.concatenate([mnist_test, train]), axis=0)) == 2400
    clips = everything(data.splits["test"])["inputs"]["audio"][:, 0]  # the first sample is the clip's number
    assert {raw.clip_names()[k].split("_")[1] for k in clips} == {"theo"}


def test_mnist_test_has_no_audio(fake, cache):
    batch = everything(load(fake, cache).splits["mnist_test"])
    assert not batch["present"]["audio"].any() and batch["present"]["image"].all()
    assert not batch["length"]["audio"].any() and not batch["inputs"]["audio"].any()
    np.testing.assert_array_equal(batch["inputs"]["image"][..., 0], raw.read_images(fake)["test"])
    assert "mnist_test" not in load(fake, cache, modalities={"audio": MODALITIES["audio"]}).splits


def test_audio_is_cut_and_padded(fake, cache):
    spec = {"audio": {**MODALITIES["audio"], "samples": 5}}
    batch = everything(load(fake, cache, modalities=spec).splits["test"])
    assert batch["inputs"]["audio"].shape == (300, 5) and batch["inputs"]["audio"].dtype == np.int16
    np.testing.assert_array_equal(batch["length"]["audio"], np.minimum(2 + batch["inputs"]["audio"][:, 0] % 7, 5))


def test_building_at_the_same_time_is_safe(fake, tmp_path):
    code = (
        "import sys, pathlib; from mmr_jax.data.avdigits_builder import prepare;"
        "print(prepare(*map(pathlib.Path, sys.argv[1:])).name)"
    )
    command = [sys.executable, "-c", code, str(fake), str(tmp_path)]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    names = {builder.communicate()[0].strip() for builder in builders}
    assert [builder.returncode for builder in builders] == [0, 0]
    assert names == {path.name for path in tmp_path.iterdir()} and len(names) == 1  # and no leftovers
    assert len(avdigits_builder.PreparedSplit(tmp_path / names.pop(), "train")) == 2400


def test_a_build_that_comes_second_keeps_the_first(fake, tmp_path, monkeypatch):
    folder = avdigits_builder.prepare(fake, tmp_path)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
    monkeypatch.setattr(Path, "is_dir", lambda path: path != folder and os.path.isdir(path))
    assert avdigits_builder.prepare(fake, tmp_path) == folder
    assert sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_a_changed_root_is_built_anew(own, tmp_path):
    first = avdigits_builder.prepare(own, tmp_path)
    write_wav(own / raw.RECORDINGS / "0_george_0.wav", [1, 2, 3])
    second = avdigits_builder.prepare(own, tmp_path)
    assert first != second
    assert avdigits_builder.PreparedSplit(second, "test")[0]["audio"].tolist() == [1, 2, 3]


def test_the_fingerprint_names_the_content_wherever_it_is(fake, own, cache, tmp_path):
    first = load(fake, cache).fingerprint
    assert first and load(own, tmp_path / "a").fingerprint == first
    write_wav(own / raw.RECORDINGS / f"{raw.clip_names()[7]}.wav", [5] * 9)
    assert load(own, tmp_path / "a").fingerprint != first


def test_pairing_csv_is_followed_and_checked(own, tmp_path):
    pairs = raw.read_pairs(own)
    fields = ["id", "digit", "speaker", "fsdd_index", "split3", "audio", "mnist_file", "mnist_index"]
    rows = [
        (p.name, p.digit, p.speaker, p.index, p.split, p.audio, f"mnist/{raw.IMAGES[p.image_set]}", p.image)
        for p in reversed(pairs)
    ]

    def write(rows):
        (own / "avdigits").mkdir(exist_ok=True)
        with (own / raw.PAIRING).open("w", newline="") as file:
            csv.writer(file).writerows([fields, *rows])

    write(rows)
    assert raw.read_pairs(own) == pairs[::-1]
    write([(*rows[0][:-1], rows[0][-1] + 1), *rows[1:]])
    with pytest.raises(UserError, match=r"all.csv: 9_yweweler_49 is paired with train image \d+, no 9"):
        load(own, tmp_path)
    write([row[:3] for row in rows])
    with pytest.raises(UserError, match="no pairing of avdigits"):
        load(own, tmp_path)


def test_absent_and_incomplete_folders(own, tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist; set --config.data.root"):
        load(own / "nowhere", tmp_path)
    (own / raw.RECORDINGS / "4_lucas_3.wav").unlink()
    with pytest.raises(UserError, match=r"recordings/4_lucas_3.wav is missing$"):
        load(own, tmp_path)
    shutil.rmtree(own / "mnist")
    with pytest.raises(UserError, match="mnist/train-images-idx3-ubyte.gz is missing and 4 more files"):
        load(own, tmp_path)


@pytest.mark.parametrize("keep", [0, 20, -5])
def test_truncated_wav(own, tmp_path, keep):
    path = own / raw.RECORDINGS / "7_theo_20.wav"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"7_theo_20.wav is (truncated|damaged)") as caught:
        load(own, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("avdigits-*")) == []  # nothing half built stays


def test_wav_of_another_rate(own, tmp_path):
    with wave.open(str(own / raw.RECORDINGS / "7_theo_20.wav"), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"\0" * 40)
    with pytest.raises(UserError, match="7_theo_20.wav has 2 channels of 16 bit at 16000 Hz"):
        load(own, tmp_path)


@pytest.mark.parametrize("file", [raw.IMAGES["train"], raw.LABELS["test"]])
def test_truncated_and_foreign_gz(own, tmp_path, file):
    path = own / "mnist" / file
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"", gzip.compress(b"something else")):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=file) as caught:
            load(own, tmp_path)
        assert "\n" not in str(caught.value)
    path.write_bytes(gzip.compress(gzip.decompress(data)[:-3]))
    with pytest.raises(UserError, match="its header promises"):
        load(own, tmp_path)


@pytest.mark.parametrize("damage", ["flip", "half", "tail", "empty", "absent"])
def test_damaged_prepared_file_is_named(fake, prepared, damage):
    (shard,) = prepared.glob("*/*-val.array_record-*")
    data = bytearray(shard.read_bytes())
    filled = np.flatnonzero(np.frombuffer(data, np.uint8)[: len(data) // 2])
    data[filled[len(filled) // 2]] ^= 1
    if damage == "absent":
        shard.unlink()
    else:
        cut = {"flip": len(data), "half": len(data) // 2, "tail": len(data) - 100, "empty": 0}[damage]
        shard.write_bytes(data[:cut])
    with pytest.raises(UserError, match=shard.name) as caught:
        load(fake, prepared)
    assert "delete the folder" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_damaged_description_of_prepared_data(fake, prepared, file):
    (path,) = prepared.glob(f"*/{file}")
    path.write_text("{")
    with pytest.raises(UserError, match="delete the folder") as caught:
        load(fake, prepared)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(split="oficial"), "did you mean 'official'"),
        (dict(talker="theos"), "did you mean 'theo'"),
        (dict(download=True), "exclude each other"),
        (dict(modalities={}), "no modalities"),
        (dict(modalities={"sound": MODALITIES["audio"]}), "no modality 'sound'"),
        (dict(modalities={"image": {**MODALITIES["image"], "kind": "video"}}), "is of kind 'image'"),
        (dict(modalities={"audio": {**MODALITIES["audio"], "sample_rate": 16000}}), "have 8000"),
        (dict(modalities={"image": {**MODALITIES["image"], "height": 32}}), "avdigits has"),
    ],
)
def test_bad_options_are_refused(fake, cache, change, match):
    with pytest.raises(UserError, match=match):
        load(fake, cache, **change)


def serve_fake(fake, folder, monkeypatch):
    """Points the download at local archives of the fake root."""
    with tarfile.open(folder / "fsdd.tar.gz", "w:gz") as tar:
        tar.add(fake / "fsdd", "free-spoken-digit-dataset-master")
    digests = {
        f: avdigits_download.hashlib.sha256((fake / "mnist" / f).read_bytes()).hexdigest()
        for f in avdigits_download.MNIST_SHA256
    }
    monkeypatch.setattr(avdigits_download, "MNIST_URL", (fake / "mnist").as_uri())
    monkeypatch.setattr(avdigits_download, "MNIST_SHA256", digests)
    monkeypatch.setattr(avdigits_download, "FSDD_URL", (folder / "fsdd.tar.gz").as_uri())
    recordings = avdigits_download.recordings_digest(fake / raw.RECORDINGS)
    monkeypatch.setattr(avdigits_download, "FSDD_SHA256", recordings)


def test_download(fake, tmp_path, monkeypatch):
    serve_fake(fake, tmp_path, monkeypatch)
    data = load("", tmp_path / "cache", download=True)
    assert len(data.splits["test"]) == 300
    monkeypatch.setattr(avdigits_download, "_fetch", None)  # what is there is not fetched again
    load("", tmp_path / "cache", download=True)


def test_download_of_other_content_is_refused(fake, tmp_path, monkeypatch):
    serve_fake(fake, tmp_path, monkeypatch)
    monkeypatch.setattr(avdigits_download, "FSDD_SHA256", "0" * 64)
    with pytest.raises(UserError, match="does not hold the 3000 recordings"):
        load("", tmp_path / "a", download=True)
    monkeypatch.setitem(avdigits_download.MNIST_SHA256, raw.LABELS["test"], "0" * 64)
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte.gz has sha256"):
        load("", tmp_path / "b", download=True)
    monkeypatch.setattr(avdigits_download, "MNIST_URL", (tmp_path / "none").as_uri())
    with pytest.raises(UserError, match="cannot download"):
        load("", tmp_path / "c", download=True)


needs_real = pytest.mark.skipif(
    not (REAL / "fsdd").is_dir() or not (REAL / "mnist").is_dir(),
    reason=f"no real digits in {REAL} (set MMR_DATA to the folder that holds fsdd/ and mnist/)",
)


@needs_real
def test_real_values_equal_the_raw_files(cache):
    data = load(REAL, cache, labelled=2400)
    sizes = {s: len(v) for s, v in data.splits.items()}
    assert sizes == dict(unlabelled=2400, labelled=2400, val=300, test=300, mnist_test=10000)
    pairs, images = raw.read_pairs(REAL), raw.read_images(REAL)
    for split, name in (("train", "labelled"), ("val", "val"), ("test", "test")):
        batch = everything(data.splits[name])
        for row, pair in enumerate([p for p in pairs if p.split == split]):
            sound = raw.read_wav(REAL / pair.audio)[:4096]
            assert batch["length"]["audio"][row] == len(sound) and batch["label"][row] == pair.digit
            np.testing.assert_array_equal(batch["inputs"]["audio"][row, : len(sound)], sound)
            assert not batch["inputs"]["audio"][row, len(sound) :].any()
            np.testing.assert_array_equal(batch["inputs"]["image"][row, ..., 0], images[pair.image_set][pair.image])


@needs_real
def test_real_splits_do_not_overlap():
    pairs = raw.read_pairs(REAL)
    assert len({p.audio for p in pairs}) == len({(p.image_set, p.image) for p in pairs}) == 3000
    assert all(p.split == raw.split_of(p.index) for p in pairs)
    assert all((p.image_set == "test") == (p.split == "test") for p in pairs)
    contents = {p.split: set() for p in pairs}
    for p in pairs:
        contents[p.split].add((REAL / p.audio).read_bytes())
    assert not contents["test"] & (contents["train"] | contents["val"]) and not contents["train"] & contents["val"]


@needs_real
def test_real_files_are_the_published_ones():
    for file, sha256 in avdigits_download.MNIST_SHA256.items():
        assert avdigits_download.hashlib.sha256((REAL / "mnist" / file).read_bytes()).hexdigest() == sha256
    assert avdigits_download.recordings_digest(REAL / raw.RECORDINGS) == avdigits_download.FSDD_SHA256
