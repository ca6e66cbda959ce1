"""Whole runs in this process: what is written, and that it does not depend on how."""

import csv
import dataclasses
import fcntl
import hashlib
import json

import numpy as np
import prepare_files as made
import pytest
import tensorflow_datasets as tfds

from mmr_jax.data.prepare import folder, plan
from mmr_jax.data.prepare.records import Decoder, features_of, read_info
from mmr_jax.data.prepare.run import Options, prepare
from mmr_jax.errors import UserError

PER_SHARD = 8


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def listing(media):
    """20 clips to train on, of which one is missing and one has no text, and 5 to test."""
    clips = [*made.wavs(media, 20), *made.wavs(media, 5, "test")]
    clips[3] = dataclasses.replace(clips[3], media="absent.wav")
    clips[4] = dataclasses.replace(clips[4], texts={})
    return made.listing(clips, problems=[("again", "clip", "duplicate id", "line 7")])


def make(listing, media, out, **more):
    return prepare(listing, media, out, made.SMALL, PER_SHARD, options=Options(**{"processes": 2, **more}))


@pytest.fixture(scope="module")
def whole(listing, media, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    make(listing, media, out)
    return out


def records(out, split):
    """The examples of a split in order, by TFDS."""
    decoder = Decoder(features_of(out))
    method = tfds.decode.DeserializeMethod.RAW_BYTES
    source = tfds.builder_from_directory(out).as_data_source(split=split, deserialize_method=method)
    return [decoder.decode(source[i]) for i in range(len(source))]


def test_what_is_written(whole, listing, media):
    info = read_info(whole)
    assert info["splits"] == {
        "train": {"clips": 20, "kept": 19, "audio": 19, "frames": 0, "text": 18},
        "test": {"clips": 5, "kept": 5, "audio": 5, "frames": 0, "text": 5},
    }
    assert info["settings"] == dataclasses.asdict(made.SMALL) and info["modalities"] == ["audio", "text"]
    assert info["label_sets"] == {"labels": {"multilabel": True, "metric": "map"}}
    with (whole / "failures.csv").open(newline="") as file:
        assert [tuple(row.values())[:4] for row in csv.DictReader(file)] == [
            ("again", "", "clip", "duplicate id"),
            *sorted(
                [("train-3", "train", "clip", "missing file"), ("train-4", "train", "text", "no text")],
                key=lambda row: hashlib.sha256(f"sounds\0{row[0]}".encode()).digest(),
            ),
        ]
    text = (whole / "summary.txt").read_text()
    assert "missing file" in text and "duplicate id" in text and "x real time" not in text
    shards = sorted(p.name for p in whole.glob("*.array_record*"))
    assert [s.partition(".")[0] for s in shards] == ["sounds-test"] + ["sounds-train"] * 3
    digests = "".join(hashlib.sha256((whole / s).read_bytes()).hexdigest() for s in shards)
    assert info["digest"] == hashlib.sha256(digests.encode()).hexdigest()
    assert not folder.partial(whole).exists() and not list(whole.parent.glob("*.failures.csv"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_index_and_records_agree_with_the_listing(whole, listing, media, split):
    by_id = {clip.id: clip for clip in listing.clips if clip.split == split}
    wanted = sorted(by_id, key=lambda i: hashlib.sha256(f"sounds\0{i}".encode()).digest())
    examples, index = records(whole, split), np.load(whole / f"index-{split}.npz")
    assert [e["id"] for e in examples] == [i for i in wanted if i != "train-3"] == index["id"].tolist()
    for k, example in enumerate(examples):
        clip = by_id[example["id"]]
        pcm = made.write_wav(media / "again.wav", 0.2, seed=int(clip.id.partition("-")[2]))
        np.testing.assert_array_equal(example["audio"], pcm)
        assert tuple(example["texts"]["text"]) == clip.texts.get("text", ())
        names = [made.CLASSES[n] for n in example["labels"]["labels"][0]]
        assert names == [label.name for label in clip.labels["labels"]]
        begin, end = index["offset-labels"][k : k + 2]
        np.testing.assert_array_equal(index["label-labels"][begin:end], example["labels"]["labels"][0])
        assert index["present"][k].tolist() == [True, False, clip.id != "train-4"]
        assert index["duration"][k] == np.float32(0.2) and index["source"][k] == clip.source


def test_one_process_gives_the_same_bytes(whole, listing, media, tmp_path):
    make(listing, media, tmp_path / "out", processes=1)
    assert made.contents(tmp_path / "out") == made.contents(whole)


def test_beam_gives_the_same_bytes(whole, listing, media, tmp_path):
    pytest.importorskip("apache_beam")
    from mmr_jax.data.prepare import beam

    make(listing, media, tmp_path / "out", execute=beam.executor("DirectRunner"))
    assert made.contents(tmp_path / "out") == made.contents(whole)
    with pytest.raises(UserError, match="--runner=DirectRuner"):
        beam.executor("DirectRuner")


@pytest.mark.parametrize("where", ["here", "beam"])
def test_a_clip_that_kills_its_process(whole, listing, media, tmp_path, where):
    """One that does so whenever it is read is noted; one that does so once (no memory, say) is kept."""
    execute = None
    if where == "beam":
        pytest.importorskip("apache_beam")
        from mmr_jax.data.prepare import beam

        execute = beam.executor("DirectRunner")
    clips = list(listing.clips)
    clips[7] = dataclasses.replace(clips[7], media=made.Deadly(clips[7].media, tmp_path / "always", 2))
    clips[9] = dataclasses.replace(clips[9], media=made.Deadly(clips[9].media, tmp_path / "once", 1))
    info = make(dataclasses.replace(listing, clips=clips), media, tmp_path / "out", execute=execute, max_failed=0.2)
    assert (tmp_path / "always").stat().st_size == 2 and (tmp_path / "once").stat().st_size == 1
    assert info["splits"]["train"]["kept"] == 18
    lines = (tmp_path / "out" / "failures.csv").read_text().splitlines()
    assert "train-7,train,clip,undecodable,the decoder crashed (signal 11)" in lines and len(lines) == 5
    before = [e for e in records(whole, "train") if e["id"] != "train-7"]
    for one, other in zip(records(tmp_path / "out", "train"), before, strict=True):
        assert one["id"] == other["id"]
        np.testing.assert_array_equal(one["audio"], other["audio"])


def test_what_is_there_already(whole, listing, media, capsys):
    before = made.contents(whole)
    make(listing, media, whole)
    assert "is made already" in capsys.readouterr().out and made.contents(whole) == before
    with pytest.raises(UserError, match="clips_per_shard was 8 and is 9;"):
        prepare(listing, media, whole, made.SMALL, 9)
    other = dataclasses.replace(listing, clips=listing.clips[1:])
    with pytest.raises(UserError, match="made from something else: the listing .* has changed; give another"):
        make(other, media, whole)
    with pytest.raises(UserError, match="exists and is no prepared data set"):
        make(listing, media, media)


def test_what_a_kill_after_publishing_left_is_cleared(whole, listing, media):
    work = folder.partial(whole)
    (work / "facts").mkdir(parents=True)
    make(listing, media, whole)
    assert not work.exists()


def test_what_was_begun_with_something_else(listing, media, tmp_path):
    work = tmp_path / "out.partial"
    work.mkdir()
    facts = plan.make_plan(listing, made.SMALL, PER_SHARD).facts
    (work / "plan.json").write_text(json.dumps({**facts, "rate": 16000, "media": str(media)}))
    with pytest.raises(UserError, match=r"out\.partial was begun with something else: rate was 16000 and is 8000; del"):
        make(listing, media, tmp_path / "out")


def test_two_at_once(listing, media, tmp_path):
    (tmp_path / "out.partial").mkdir()
    with (tmp_path / "out.partial" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another mmr prepare is at work"):
            make(listing, media, tmp_path / "out")


def test_too_many_lost(listing, media, tmp_path):
    clips = [dataclasses.replace(c, media=f"no{c.media}") if c.id < "train-13" else c for c in listing.clips]
    many, out = dataclasses.replace(listing, clips=clips), tmp_path / "out"
    lost = sum(c.media.startswith("no") for c in clips) + 2  # with train-3 and the duplicate
    with pytest.raises(UserError, match="^no clip of test is left, most of them: missing file"):
        make(many, media, out)
    assert not out.exists() and (tmp_path / "out.failures.csv").read_text().count("missing file") == lost - 1
    many = dataclasses.replace(listing, clips=clips[:20])
    with pytest.raises(UserError, match=rf"^{lost - 5} of 21 clips are lost whole, .* --max_failed=0.1$"):
        make(many, media, tmp_path / "more")
    make(many, media, tmp_path / "more", max_failed=0.6)  # nothing is read again
    assert not (tmp_path / "more.failures.csv").exists() and (tmp_path / "more" / "failures.csv").exists()


def test_some_splits_and_modalities(listing, media, tmp_path):
    out = tmp_path / "out"
    info = prepare(listing, media, out, made.SMALL, splits=["test"], modalities=["audio"], options=Options(processes=1))
    assert list(info["splits"]) == ["test"] and info["texts"] == [] and records(out, "test")[0]["texts"] == {}
    with pytest.raises(UserError, match="names 'tets'.*did you mean 'test'"):
        prepare(listing, media, out, splits=["tets"])
    with pytest.raises(UserError, match="names 'video'"):
        prepare(listing, media, out, modalities=["video"])
    with pytest.raises(UserError, match="is no folder"):
        prepare(listing, media / "absent", tmp_path / "other")


def test_a_shard_of_which_nothing_is_left(listing, media, tmp_path):
    chosen = plan.make_plan(listing, made.SMALL, 2).splits["train"][2:4]
    clips = [dataclasses.replace(c, media="absent.wav") if c in chosen else c for c in listing.clips]
    prepare(dataclasses.replace(listing, clips=clips), media, tmp_path / "out", made.SMALL, 2, options=Options(2, 0.3))
    assert len(records(tmp_path / "out", "train")) == 17
