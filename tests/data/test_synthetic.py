import hashlib
import subprocess
import sys

import ml_collections
import numpy as np
import pytest
from test_source import assert_same

from mmr_jax.data import synthetic, synthetic_text
from mmr_jax.data.source import load_dataset, take
from mmr_jax.data.text import FIRST, encode_bytes
from mmr_jax.errors import UserError

MODALITIES = {
    "audio": {"kind": "spectrogram", "sample_rate": 16000, "samples": 10240},
    "video": {"kind": "video", "frames": 4, "height": 32, "width": 32, "channels": 3},
    "text": {"kind": "text", "length": 48, "vocab_size": 259},
}


def dataset(modalities=("audio", "video", "text"), **config):
    return load_dataset({"name": "synthetic", **config}, {m: MODALITIES[m] for m in modalities})


def digest(source, count=6):
    batch = take(source, range(count))
    return hashlib.sha256(b"".join(batch["inputs"][m].tobytes() for m in MODALITIES)).hexdigest()


def decode_bytes(tokens):
    """The inverse of `encode_bytes`."""
    return bytes(int(t) - FIRST for t in tokens if t >= FIRST).decode()


def captions(source, size):
    return [decode_bytes(t) for t in take(source, range(size))["inputs"]["text"]]


def test_records_have_the_configured_shapes():
    data = dataset(unlabelled=40)
    assert data.modalities == ("audio", "video", "text") and len(data.class_names) == 24
    assert {s: len(v) for s, v in data.splits.items()} == dict(unlabelled=40, labelled=512, val=512, test=1024)
    record = synthetic.SyntheticSource(synthetic.default_config(), MODALITIES, "test", 10)[3]
    assert record["inputs"]["audio"].shape == (10240,) and record["inputs"]["audio"].dtype == np.int16
    assert record["inputs"]["video"].shape == (4, 32, 32, 3) and record["inputs"]["video"].dtype == np.uint8
    assert record["inputs"]["text"].shape == (48,) and record["inputs"]["text"].dtype == np.int32
    assert record["length"]["audio"] == 10240 and record["length"]["video"] == 4
    assert record["label"] == 3 and record["id"] == 3 and all(record["present"].values())


def test_a_config_dict_serves_as_configuration():
    config = ml_collections.ConfigDict(synthetic.default_config()).lock()
    modalities = ml_collections.ConfigDict(MODALITIES).lock()
    assert digest(load_dataset(config, modalities).splits["val"]) == digest(dataset().splits["val"])


def test_records_do_not_depend_on_process_order_or_neighbours():
    source = dataset(cache=False).splits["unlabelled"]
    code = (
        "import sys; sys.path.insert(0, 'tests/data'); import test_synthetic as t;"
        "print(t.digest(t.dataset(cache=False).splits['unlabelled']))"
    )
    root = __file__.rsplit("/tests/", 1)[0]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(source)
    assert_same(source[5], dataset(cache=False, unlabelled=6).splits["unlabelled"][5])
    assert_same(take(source, [5, 1]), take(dataset(unlabelled=64).splits["unlabelled"], [5, 1]))


def test_splits_seeds_and_knobs_change_what_they_should():
    base = dataset(cache=False)
    assert digest(base.splits["val"]) != digest(base.splits["test"])
    assert digest(base.splits["val"]) != digest(dataset(seed=1).splits["val"])
    plain, noisy = base.splits["val"][0], dataset(cache=False, audio_noise=2.0).splits["val"][0]
    assert (plain["inputs"]["audio"] != noisy["inputs"]["audio"]).any()
    np.testing.assert_array_equal(plain["inputs"]["video"], noisy["inputs"]["video"])
    np.testing.assert_array_equal(plain["inputs"]["text"], noisy["inputs"]["text"])


def test_leaving_out_a_modality_does_not_change_the_others():
    whole, part = dataset(cache=False).splits["val"][4], dataset(("video",), cache=False).splits["val"][4]
    np.testing.assert_array_equal(whole["inputs"]["video"], part["inputs"]["video"])


def test_only_unlabelled_examples_miss_a_modality():
    data = dataset(unlabelled=1000, missing=0.3, test=50)
    batch = data.splits["unlabelled"].take(range(1000))
    present = np.stack(list(batch["present"].values()))
    assert set(present.sum(0)) == {2, 3}
    assert abs((present.sum(0) == 2).mean() - 0.3) < 0.05
    assert (~present).sum(1).min() > 50  # each of the three is missing now and then
    for m, flags in batch["present"].items():
        assert not batch["inputs"][m][~flags].any() and not batch["length"][m][~flags].any()
        assert batch["length"][m][flags].all()
    assert all(f.all() for f in data.splits["test"].take(range(50))["present"].values())


def test_a_single_modality_is_never_missing():
    batch = dataset(("text",), unlabelled=200, missing=1.0).splits["unlabelled"].take(range(200))
    assert batch["present"]["text"].all()


def test_labels_are_balanced():
    labels = dataset(("text",)).splits["labelled"].take(range(480))["label"]
    assert (np.bincount(labels, minlength=24) == 20).all()


def test_captions_name_the_class_as_often_as_configured():
    data = dataset(("text",), test=4000)
    labels = data.splits["test"].take(range(4000))["label"]
    texts = captions(data.splits["test"], 4000)
    named = np.array([data.class_names[c] in text.split() for c, text in zip(labels, texts, strict=True)])
    assert abs(named.mean() - 0.255) < 0.03
    others = [any(n in text.split() for n in data.class_names) for text in np.array(texts)[~named]]
    assert not any(others)  # never a wrong name


@pytest.mark.parametrize(("named", "hint", "expected"), [(0, 0, 0.0), (1, 0, 1.0), (0, 1, 1.0)])
def test_captions_extremes(named, hint, expected):
    data = dataset(("text",), caption_names_class=named, caption_hint=hint, test=200)
    hints = {w for pair in synthetic_text._FORM_HINT + synthetic_text._TINT_HINT for w in pair}
    topics = hints | set(data.class_names)
    share = np.mean([bool(topics & set(text.split())) for text in captions(data.splits["test"], 200)])
    assert share == expected


def test_text_round_trip_and_truncation():
    tokens, length = encode_bytes("hé!", {"length": 10})
    assert tokens.tolist() == [1, 107, 198, 172, 36, 2, 0, 0, 0, 0] and length == 6
    assert decode_bytes(tokens) == "hé!"
    tokens, length = encode_bytes("a" * 50, {"length": 8})
    assert tokens.tolist() == [1, *[100] * 6, 2] and length == 8


def test_longest_caption_fits_the_default_length():
    texts = captions(dataset(("text",), test=4000, caption_drop=0.0).splits["test"], 4000)
    assert np.mean([len(text) > 45 for text in texts]) < 0.01


def test_class_names_are_distinct_and_stable():
    names = synthetic_text.class_names(48)
    assert len(set(names)) == 48 and synthetic_text.class_names(24) == names[:24]


def centroid_accuracy(split_train, split_test, features):
    train, test = (split.take(range(len(split))) for split in (split_train, split_test))
    x, y = features(train), features(test)
    mean, spread = x.mean(0), x.std(0) + 1e-6
    x, y = (x - mean) / spread, (y - mean) / spread
    centres = np.stack([x[train["label"] == c].mean(0) for c in range(24)])
    nearest = ((y[:, None] - centres) ** 2).sum(-1).argmin(1)
    return (nearest == test["label"]).mean()


def spectrum(batch):
    wave = batch["inputs"]["audio"].reshape(-1, 10, 1024) * np.hanning(1024)
    return np.log(np.abs(np.fft.rfft(wave)[..., 4:324]).reshape(-1, 10, 80, 4).mean((1, 3)) + 300)


def colours(batch):
    frames = batch["inputs"]["video"].reshape(len(batch["id"]), -1, 3) // 64
    codes = (frames * (16, 4, 1)).sum(-1)
    return np.stack([np.bincount(row, minlength=64) for row in codes])


def test_difficulty_goes_from_easy_to_chance():
    sizes = dict(labelled=480, test=240)
    for modality, features, easy in (("audio", spectrum, 0.6), ("video", colours, 0.14)):
        scores = []
        for level in (0.0, 0.7, 6.0):
            data = dataset((modality,), **sizes, **{f"{modality}_noise": level, f"{modality}_jitter": level})
            scores.append(centroid_accuracy(data.splits["labelled"], data.splits["test"], features))
        assert scores[0] > easy and scores[0] > scores[2] + 0.05, (modality, scores)
        assert scores[2] < 0.1, (modality, scores)  # chance is 0.042


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (dict(classes=1), "data.classes is 1"),
        (dict(classes=49), "2 to 48"),
        (dict(missing=1.5), "data.missing"),
        (dict(val=0), "data.val"),
        (dict(audio_noise=-1), "data.audio_noise"),
    ],
)
def test_bad_options_are_refused(config, match):
    with pytest.raises(UserError, match=match):
        dataset(**config)


def test_bad_modalities_are_refused():
    with pytest.raises(UserError, match="no modalities"):
        load_dataset({"name": "synthetic"}, {})
    with pytest.raises(UserError, match="'imu' is of kind 'features'"):
        load_dataset({"name": "synthetic"}, {"imu": {"kind": "features"}})
    with pytest.raises(UserError, match="'video' has 1 channels"):
        load_dataset({"name": "synthetic"}, {"video": {**MODALITIES["video"], "channels": 1}})


def test_images_are_made_too():
    spec = {"picture": {"kind": "image", "height": 24, "width": 20, "channels": 3}}
    batch = load_dataset({"name": "synthetic"}, spec).splits["val"].take([0, 1])
    assert batch["inputs"]["picture"].shape == (2, 24, 20, 3) and batch["length"]["picture"].tolist() == [
        1,
        1,
    ]


def test_images_with_frames_are_the_video_of_the_same_name():
    image = {"picture": {"kind": "image", "height": 24, "width": 20, "channels": 3, "frames": 5}}
    batch = load_dataset({"name": "synthetic"}, image).splits["val"].take([0, 1])
    video = load_dataset({"name": "synthetic"}, {"picture": {**image["picture"], "kind": "video"}}).splits["val"]
    np.testing.assert_array_equal(batch["inputs"]["picture"], video.take([0, 1])["inputs"]["picture"])
    assert batch["inputs"]["picture"].shape == (2, 5, 24, 20, 3) and batch["length"]["picture"].tolist() == [1, 1]
    assert (batch["inputs"]["picture"][:, 0] != batch["inputs"]["picture"][:, 4]).any()
