"""Prepared data sets as sources: what is read equals what was written, and what cannot be read is never trained on."""

import io
import itertools
import pickle
from pathlib import Path

import numpy as np
import prepared_files as files
import pytest
from PIL import Image

from mmr_jax import config as configs
from mmr_jax.data.pipeline import batch_at, eval_batches, train_iterator
from mmr_jax.data.prepared.choose import Part, parse
from mmr_jax.data.source import Subset, classes_of, default_config, labels_of, load_dataset, take
from mmr_jax.data.text import encode
from mmr_jax.errors import UserError

TEXT = configs.text(length=16)
AUDIO = configs.spectrogram(sample_rate=files.RATE, samples=1000, frames=96, mels=16)
VIDEO = configs.video(frames=2, height=20, width=20, patch_size=(1, 10, 10))
MODALITIES = {"audio": AUDIO, "video": VIDEO, "text": TEXT}


@pytest.fixture
def examples():
    return [files.example(i) for i in range(12)]


@pytest.fixture
def folder(tmp_path, examples):
    return files.write(tmp_path / "zoo", {"train": examples, "val": examples[:4], "test": examples[:7]})


def load(folder, modalities=MODALITIES, **changes):
    return load_dataset({**default_config("prepared"), "folder": str(folder), **changes}, modalities)


def decoded(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def test_evaluation_reads_the_middle_of_what_was_written(folder, examples):
    record = load(folder).splits["labelled"][5]
    wave, frames = examples[5]["audio"], examples[5]["frames"]
    np.testing.assert_array_equal(record["inputs"]["audio"], wave[250:1250])
    expected = np.stack([decoded(frames[i])[:, 5:25] for i in (1, 3)])  # 20 of 30 columns
    np.testing.assert_array_equal(record["inputs"]["video"], expected)
    np.testing.assert_array_equal(record["inputs"]["text"], encode("a dog", TEXT)[0])
    assert record["present"] == dict.fromkeys(MODALITIES, True)
    assert record["length"] == {"audio": 1000, "video": 2, "text": encode("a dog", TEXT)[1]}
    assert (record["label"], record["id"]) == (2, 5)


def test_training_cuts_somewhere_by_seed_and_step_alone(folder, examples):
    source = load(folder).splits["unlabelled"]
    batches = [batch_at(source, 6, seed=3, step=step) for step in range(40)]
    starts, columns, texts = set(), set(), set()
    for batch in batches:
        for i, wave, video, text in zip(batch["id"], *(batch["inputs"][m] for m in MODALITIES), strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(examples[i]["audio"], 1000)
            starts.add(int(np.flatnonzero((windows == wave).all(axis=1))[0]))
            frame = decoded(examples[i]["frames"][1])
            columns.add(next(c for c in range(11) if (frame[:, c : c + 20] == video[0]).all()))
            texts.add(tuple(text))
    assert min(starts) >= 0 and max(starts) <= 500 and len(starts) > 100
    assert columns == set(range(11)) and texts == {tuple(encode(t, TEXT)[0]) for t in ("a dog", "an owl")}
    again = batch_at(load(folder).splits["unlabelled"], 6, seed=3, step=17)
    for m in MODALITIES:
        np.testing.assert_array_equal(again["inputs"][m], batches[17]["inputs"][m])


def test_two_hosts_share_the_batches_of_one(folder):
    source = load(folder).splits["unlabelled"]
    for step in range(3):
        whole = batch_at(source, 4, 0, step)
        halves = [batch_at(source, 4, 0, step, rows) for rows in np.split(np.arange(4), 2)]
        for m in MODALITIES:
            both = np.concatenate([h["inputs"][m] for h in halves])
            np.testing.assert_array_equal(both, whole["inputs"][m])
    for hosts in (1, 2, 3):
        shares = [np.arange(h, 6, hosts) for h in range(hosts)]
        seen = [i for rows in shares for b in eval_batches(source, 6, rows) for i in b["id"] if i >= 0]
        assert sorted(seen) == list(range(12))


def test_an_image_of_several_frames_is_one_frame_in_training(folder, examples):
    image = configs.image(height=10, width=15, patch_size=(5, 5), frames=3)
    source = load(folder, {"image": image}).splits["unlabelled"]
    evaluated, trained = take(source, [2]), batch_at(source, 8, 0, 0)
    assert evaluated["inputs"]["image"].shape == (1, 3, 10, 15, 3) and trained["inputs"]["image"].shape == (
        8,
        10,
        15,
        3,
    )
    small = Image.open(io.BytesIO(examples[2]["frames"][2])).resize((15, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(evaluated["inputs"]["image"][0, 1], np.asarray(small))


def test_an_absent_modality_is_masked_and_a_short_clip_padded(tmp_path):
    made = [files.example(0, frames=0, samples=400), files.example(1, samples=0, texts=(" ",))]
    source = load(files.write(tmp_path / "zoo", dict.fromkeys(("train", "val", "test"), made))).splits["unlabelled"]
    batch = take(source, [0, 1])
    assert [batch["present"][m].tolist() for m in MODALITIES] == [[True, False], [False, True], [True, False]]
    assert batch["length"]["audio"].tolist() == [400, 0] and not batch["inputs"]["audio"][0, 400:].any()
    assert not batch["inputs"]["video"][0].any() and batch["inputs"]["video"][1].any()


def test_labels_come_from_the_index(tmp_path):
    made = [files.example(i, sounds=s) for i, s in enumerate([(0,), (0, 1), (), (1,)])]
    folder = files.write(tmp_path / "zoo", dict.fromkeys(("train", "val", "test"), made))
    single, several = load(folder), load(folder, label="sounds")
    assert labels_of(single.splits["labelled"])[0].tolist() == [0, 1, 2, 0]
    assert (several.metric, several.multilabel, several.class_names) == ("map", True, ("bark", "hoot"))
    labelled = several.splits["labelled"]  # without the clip that has no such label
    np.testing.assert_array_equal(labels_of(labelled)[0], [[1, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(take(labelled, range(3))["label"], labels_of(labelled)[0])
    assert len(several.splits["unlabelled"]) == 4 and not take(several.splits["unlabelled"], [1])["label"].any()


def test_a_flipped_byte_is_an_error_that_names_the_record(folder):
    file = files.damage(folder, "train", 1)
    source = load(folder).splits["labelled"]
    with pytest.raises(UserError, match=rf"{file.name}: record 1 \(clip1\): it cannot be read: .*on_unreadable"):
        take(source, [0, 1])
    assert take(source, [0, 2])["weight"].tolist() == [1, 1]


@pytest.mark.parametrize("policy", ["skip", "missing"])
def test_a_flipped_byte_is_never_trained_on(folder, policy, capsys):
    files.damage(folder, "train", 1)
    found = load(folder, on_unreadable=policy)
    seen = list(train_iterator(found.splits["unlabelled"], 4, 0, 0, 9))
    for batch in seen:
        lost = batch["id"] == 1
        assert not any(batch["present"][m][lost].any() or batch["inputs"][m][lost].any() for m in MODALITIES)
        np.testing.assert_array_equal(batch["weight"], np.where(lost & (policy == "skip"), 0, 1))
        assert "unreadable" not in batch
    assert found.tally.read == 36 and found.tally.lost == 3  # three epochs
    assert capsys.readouterr().out.count("record 1 (clip1)") == 1  # said once


def test_media_that_do_not_decode_follow_the_policy(tmp_path):
    made = [files.example(i) for i in range(6)]
    made[3]["frames"][1] = b"no picture"
    folder = files.write(tmp_path / "zoo", dict.fromkeys(("train", "val", "test"), made))
    with pytest.raises(UserError, match=r"\(clip3\): video cannot be read"):
        take(load(folder).splits["test"], range(6))
    for policy, present in (("missing", True), ("skip", False)):
        batch = take(load(folder, on_unreadable=policy).splits["test"], range(6))
        assert not batch["present"]["video"][3] and batch["present"]["audio"][3] == present
        assert batch["present"]["video"].sum() == 5 and batch["weight"][3] == present


def test_in_memory_everything_is_as_in_evaluation(folder):
    files.damage(folder, "train", 1)
    changes = dict(on_unreadable="skip")
    kept, read = (load(folder, in_memory=m, **changes).splits["unlabelled"] for m in (True, False))
    for batch in train_iterator(kept, 4, 0, 0, 6):
        expected = take(read, batch["id"])
        for m in MODALITIES:
            np.testing.assert_array_equal(batch["inputs"][m], expected["inputs"][m])
        np.testing.assert_array_equal(batch["weight"], expected["weight"])
        assert "unreadable" not in batch
    assert kept.tally.lost == 2


def test_too_much_that_cannot_be_read_stops(tmp_path):
    made = [files.example(i) for i in range(4)]
    made[0]["frames"][1] = b""
    folder = files.write(tmp_path / "zoo", dict.fromkeys(("train", "val", "test"), made))
    source = load(folder, on_unreadable="missing", max_unreadable=0.02).splits["unlabelled"]
    with pytest.raises(UserError, match=r"21 of 84 examples could not be read, more than data.max_unreadable=0.02"):
        list(train_iterator(source, 4, 0, 0, 1000))
    with pytest.raises(UserError, match="data.on_unreadable is 'ignore'"):
        load(folder, on_unreadable="ignore")


def test_splits_are_sliced_joined_and_mixed(tmp_path, folder):
    other = files.write(tmp_path / "other", {"extra": [files.example(i) for i in range(20, 26)]})
    found = load(folder, unlabelled=f"train[50%:]*1 + {other}/extra*3", labelled="train[25%:75%]", val="val + test")
    assert [len(found.splits[s]) for s in ("unlabelled", "labelled", "val")] == [12, 6, 11]
    np.testing.assert_array_equal(labels_of(found.splits["labelled"])[0], [0, 1, 2, 0, 1, 2])
    joined = take(found.splits["val"], [1, 5, 10])
    assert joined["id"].tolist() == [1, 5, 10] and joined["label"].tolist() == [1, 1, 0]
    assert labels_of(found.splits["val"])[1].tolist() == list(range(11))
    ids = np.concatenate([batch_at(found.splits["unlabelled"], 8, 1, step)["id"] for step in range(12)])
    own, foreign = ids[ids < 6], ids[ids >= 6]
    assert len(own) == 24 and len(foreign) == 72  # one to three
    for part in (own, foreign):  # each in epochs of its own
        assert all(len(set(epoch)) == 6 for epoch in part.reshape(-1, 6))


def test_the_grammar_of_splits():
    assert parse("train", "f") == [Part("", "train", 0.0, 1.0, "", 0.0)]
    assert parse("a/b/train[10%:90%]#audible*2.5", "f") == [Part("a/b", "train", 0.1, 0.9, "audible", 2.5)]
    for bad in ("train*2 + test", "train[90%:10%]", "train[", "", "train*0", "train*1.2.3", "train[5:10]"):
        with pytest.raises(UserError, match="^f is "):
            parse(bad, "f")


@pytest.mark.parametrize(
    "changes, modalities, message",
    [
        ({"folder": "nowhere"}, MODALITIES, "nowhere is no prepared data set"),
        ({"labelled": "trian"}, MODALITIES, "has no split 'trian'.*train"),
        ({"label": "label"}, MODALITIES, "data.label: .* has no label set 'label'.*labels"),
        ({"text": "no_labels"}, MODALITIES, "data.text: .*no_label"),
        ({"dataset": "grid"}, MODALITIES, "holds zoo, but data.dataset is 'grid'"),
        ({}, {"audio": configs.spectrogram()}, "sample_rate is 16000; .* has 1000"),
        ({}, {"f": configs.features()}, "kind 'features'; .* holds audio, frames, text"),
        ({"more_tests": ("audible",)}, MODALITIES, "name=split is expected"),
        ({"test": "test#sounds"}, MODALITIES, "are not those of data.label"),
        ({"labelled": "train*2 + test*1"}, MODALITIES, "weights are for data.unlabelled"),
        ({"unlabelled": "train#sounds"}, MODALITIES, "no labels are read here"),
    ],
)
def test_bad_options_are_one_line(folder, changes, modalities, message):
    with pytest.raises(UserError, match=message):
        load(changes.pop("folder", folder), modalities, **changes)


def test_missing_shards_and_indices_are_named(folder):
    (folder / "index-val.npz").unlink()
    with pytest.raises(UserError, match="index-val.npz is damaged .it is missing"):
        load(folder)
    (folder / "zoo-test.array_record-00001-of-00002").unlink()
    with pytest.raises(UserError, match="zoo-test.array_record-00001-of-00002 is missing"):
        load(folder, val="train")


@pytest.mark.parametrize("left", [0, 1000, 65536])
def test_a_truncated_shard_is_named(folder, left):
    file = folder / "zoo-train.array_record-00001-of-00002"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(UserError, match=rf"{file.name}: record 5 \(clip11\): it cannot be read"):
        load(folder).splits["unlabelled"][11]


def test_the_index_of_another_split_is_refused(folder):
    (folder / "index-val.npz").write_bytes((folder / "index-test.npz").read_bytes())
    with pytest.raises(UserError, match=r"index-val.npz is damaged \(offset-labels is \(8,\), expected \(5,\)\)"):
        load(folder)
    data = (folder / "index-test.npz").read_bytes()
    (folder / "index-val.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="index-val.npz is damaged"):
        load(folder)


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    """A process may have about a thousand files open; a large set has more shards."""
    monkeypatch.setattr("mmr_jax.data.prepared.folder._OPEN", 2)
    made = [files.example(i, frames=1) for i in range(12)]
    folder = files.write(tmp_path / "zoo", dict.fromkeys(("train", "val", "test"), made), shards=6)
    source = load(folder).splits["unlabelled"]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        assert take(source, range(12))["id"].tolist() == list(range(12))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_a_source_can_be_sent_to_another_process(folder):
    source = load(folder).splits["labelled"]
    np.testing.assert_array_equal(
        take(pickle.loads(pickle.dumps(source)), [3])["inputs"]["video"], take(source, [3])["inputs"]["video"]
    )


def test_classes_without_a_dense_array(tmp_path):
    made = [files.example(i, sounds=s) for i, s in enumerate([(0,), (0, 1), (), (1,)])]
    folder = files.write(tmp_path / "zoo", dict.fromkeys(("train", "val", "test"), made))
    labelled = load(folder, label="sounds", labelled="train + test").splits["labelled"]
    for source in (labelled, Subset(labelled, [4, 1])):
        classes, offsets = classes_of(source)
        dense = labels_of(source)[0]
        assert [classes[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [
            np.flatnonzero(r).tolist() for r in dense
        ]


def test_the_content_is_in_the_fingerprint(tmp_path, examples):
    splits = {"train": examples, "val": examples, "test": examples}
    prints = [load(files.write(tmp_path / d, splits, digest=d)).fingerprint for d in ("a", "b")]
    assert prints[0] != prints[1]
