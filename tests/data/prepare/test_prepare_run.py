"""Whole runs in this process: what is written, and that it does not depend on how."""

import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import math
import os
import signal
import time

import numpy as np
import prepare_files as made
import pytest
import tensorflow_datasets as tfds
from rich.console import Console

from mmr_jax.data.prepare import local, plan, work
from mmr_jax.data.prepare.listing import Clip, Label, LabelSet
from mmr_jax.data.prepare.progress import Progress
from mmr_jax.data.prepare.records import Decoder, features_of, read_info
from mmr_jax.data.prepare.run import Options, prepare
from mmr_jax.data.prepare.shards import Spent, facts_path, write_piece
from mmr_jax.data.prepare.workers import Pool
from mmr_jax.data.sets import find_media
from mmr_jax.errors import UserError

PER_SHARD = 8
INDEXES = ("index-test.npz", "index-train.npz")


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


@pytest.fixture(params=["here", "beam"])
def execute(request):
    """Who does the work: processes of this one, or Beam."""
    return None if request.param == "here" else beam_module().executor("DirectRunner")


def beam_module():
    pytest.importorskip("apache_beam")
    from mmr_jax.data.prepare import beam

    return beam


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
    digests = {s: hashlib.sha256((whole / s).read_bytes()).hexdigest() for s in [*shards, *INDEXES]}
    content = {
        "shards": [digests[s] for s in shards],
        "indexes": [digests[s] for s in INDEXES],
        "label_sets": {"labels": [made.CLASSES, True, "map"]},
    }
    assert info["digest"] == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert not work.partial(whole).exists() and not list(whole.parent.glob("*.failures.csv"))


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
    beam = beam_module()
    make(listing, media, tmp_path / "out", execute=beam.executor("DirectRunner"))
    assert made.contents(tmp_path / "out") == made.contents(whole)
    with pytest.raises(UserError, match="--runner=DirectRuner"):
        beam.executor("DirectRuner")


def test_a_clip_that_kills_its_process(whole, listing, media, tmp_path, execute):
    """One that does so whenever it is read is noted; one that does so once (no memory, say) is kept."""
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
    assert "is made already from the same listing and settings (whatever --media says" in capsys.readouterr().out
    assert made.contents(whole) == before
    with pytest.raises(UserError, match="clips_per_shard was 8 and is 9;"):
        prepare(listing, media, whole, made.SMALL, 9)
    other = dataclasses.replace(listing, clips=listing.clips[1:])
    with pytest.raises(UserError, match="made from something else: the listing .* has changed; give another"):
        make(other, media, whole)
    with pytest.raises(UserError, match="exists and is no prepared data set"):
        make(listing, media, media)


def test_what_a_kill_after_publishing_left_is_cleared(whole, listing, media):
    left = work.partial(whole)
    (left / "facts").mkdir(parents=True)
    make(listing, media, whole)
    assert not left.exists()


def test_what_was_begun_with_something_else(listing, media, tmp_path):
    left = tmp_path / "out.partial"
    left.mkdir()
    facts = plan.make_plan(listing, made.SMALL, PER_SHARD).facts
    (left / "plan.json").write_text(json.dumps({**facts, "rate": 16000, "media": str(media)}))
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
        make(many, media, out, execute=made.directly)
    assert not out.exists() and (tmp_path / "out.failures.csv").read_text().count("missing file") == lost - 1
    many = dataclasses.replace(listing, clips=clips[:20])
    with pytest.raises(UserError, match=rf"^{lost - 5} of 21 clips are lost whole, .* --max_failed=0.1$"):
        make(many, media, tmp_path / "more", execute=made.directly)
    make(many, media, tmp_path / "more", execute=made.directly, max_failed=0.6)
    assert not (tmp_path / "more.failures.csv").exists() and (tmp_path / "more" / "failures.csv").exists()


def test_media_that_are_mended_after_a_refusal(whole, listing, tmp_path):
    """Shards with lost clips are prepared anew, the others are not read again."""
    media, out = tmp_path / "media", tmp_path / "out"
    made.wavs(media, 20)
    with pytest.raises(UserError, match=r"again, which prepares shards with lost clips anew \(2\)$"):
        make(listing, media, out, execute=made.directly)  # no clip of test is there, and train-3 is lost
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out.partial" / "facts").iterdir()}
    assert len(kept) == 2 and all("-train." in name for name in kept)
    made.wavs(media, 5, "test")
    for path in media.glob("train*"):
        path.unlink() if path.stem[5:] in lost_from(listing, kept) else None
    make(listing, media, out, execute=made.directly)
    assert made.contents(out) == made.contents(whole)


def lost_from(listing, kept):
    """Numbers of the clips in the shards `kept`."""
    found = plan.make_plan(listing, made.SMALL, PER_SHARD)
    shards = [shard for shard in found.shards("train") if f"{shard.filename}.json" in kept]
    return {clip.id[6:] for shard in shards for piece in found.pieces(shard, PER_SHARD) for clip in piece.clips}


def test_the_reason_is_one_that_loses_clips(listing, media, tmp_path):
    clips = [dataclasses.replace(c, media="absent.wav") if c.id < "train-12" else c for c in listing.clips[:20]]
    kept = [(f"k{i}", "clip", "text not UTF-8", "") for i in range(15)]
    with pytest.raises(UserError, match=r"most of them: missing file \(5\)"):
        make(dataclasses.replace(listing, clips=clips, problems=kept), media, tmp_path / "out", execute=made.directly)


def test_the_digest_knows_classes_and_their_metric(whole, listing, media, tmp_path):
    before = read_info(whole)["digest"]
    names = dict(zip(made.CLASSES, ("cat", "hound", "owl"), strict=True))
    renamed = [
        dataclasses.replace(c, labels={"labels": tuple(Label(names[label.name]) for label in c.labels["labels"])})
        for c in listing.clips
    ]
    for i, (clips, labels) in enumerate(
        [
            (renamed, LabelSet(tuple(names.values()), True, "map")),
            (listing.clips, LabelSet(made.CLASSES, True, "top1")),
            (listing.clips, LabelSet(made.CLASSES, False, "map")),
            ([dataclasses.replace(c, source="one") for c in listing.clips], LabelSet(made.CLASSES, True, "map")),
        ]
    ):
        other = dataclasses.replace(listing, clips=clips, label_sets={"labels": labels})
        assert make(other, media, tmp_path / f"{i}", execute=made.directly)["digest"] != before


def test_a_process_that_the_system_kills_is_no_bad_media(whole, listing, media, tmp_path, execute):
    clips = list(listing.clips)
    clips[7] = dataclasses.replace(clips[7], media=made.Deadly(clips[7].media, tmp_path / "deaths", 2, signal.SIGKILL))
    deadly, out = dataclasses.replace(listing, clips=clips), tmp_path / "out"
    with pytest.raises(
        UserError, match=r"clip train-7 \(train7.wav\) was killed \(signal 9\), .* memory .*--processes"
    ):
        make(deadly, media, out, execute=execute)
    assert not out.exists()
    make(deadly, media, out, execute=execute)
    assert made.contents(out) == made.contents(whole)


def test_a_clip_whose_decoder_never_ends(listing, media, tmp_path, monkeypatch):
    def seconds(task):
        clips = task[1][1].clips if task[0] is write_piece else ()
        return 1.0 if any(isinstance(clip.media, made.Deadly) for clip in clips) else math.inf

    assert local.seconds((write_piece, (None, plan.Piece(None, 0, (1, 2))))) == 2 * local.LIMIT == 1200
    monkeypatch.setattr(local, "seconds", seconds)
    clips = list(listing.clips)
    clips[7] = dataclasses.replace(clips[7], media=made.Deadly(clips[7].media, tmp_path / "ends", 2, 0))
    make(dataclasses.replace(listing, clips=clips), media, tmp_path / "out", max_failed=0.2)
    lines = (tmp_path / "out" / "failures.csv").read_text().splitlines()
    assert "train-7,train,clip,undecodable,took longer than 1 s" in lines and len(lines) == 5


def test_a_shard_that_cannot_be_put_together(listing, media, tmp_path):
    """The pool's last clip of a shard calls for the merge, which dies."""
    found = plan.make_plan(listing, made.SMALL, PER_SHARD)
    shard = found.shards("test")[0]
    (piece,) = found.pieces(shard, PER_SHARD)
    job = plan.Job(tmp_path, media, made.SMALL, found.schema)
    with Pool(1) as pool, pytest.raises(UserError, match=rf"prepared {shard.filename} was killed \(signal 11\)"):
        local.one_by_one(pool, job, [piece], lambda task, spent: [(made.die, (job, shard))])


def test_names_that_are_no_utf8(listing, tmp_path):
    """The path is left as it is, what is written of it can be read."""
    name = b"caf\xe9.wav"
    pcm = made.write_wav(tmp_path / "a.wav", 0.2)
    os.rename(tmp_path / "a.wav", os.fsencode(tmp_path) + b"/" + name)
    (media,) = find_media(tmp_path)["caf\udce9"]
    clip = Clip(media.removesuffix(".wav"), "train", media, texts={"text": ("coffee",)}, labels={"labels": ()})
    assert (clip.id, clip.source) == ("caf\\xe9", "caf\\xe9.wav") and os.fsencode(clip.media) == name
    assert Clip("café", "train", "é.wav").source == "é.wav"
    make(dataclasses.replace(listing, clips=[clip], problems=[]), tmp_path, tmp_path / "out", execute=made.directly)
    (example,) = records(tmp_path / "out", "train")
    assert (example["id"], example["source"]) == ("caf\\xe9", "caf\\xe9.wav")
    np.testing.assert_array_equal(example["audio"], pcm)


def test_every_field_of_the_listing_counts(listing):
    def digest(**changes):
        return plan.make_plan(dataclasses.replace(listing, **changes), made.SMALL).facts["listing"]

    def with_clip(**changes):
        return digest(clips=[*listing.clips[:-1], dataclasses.replace(listing.clips[-1], **changes)])

    label = listing.clips[-1].labels["labels"][0]
    others = dict(id="x", split="x", media="x", start=0.1, end=2.0, source="x", texts={"text": ("x",)}, labels={})
    found = [with_clip(**{name: value}) for name, value in others.items()]
    for name, value in dict(name="owl", start=0.1, end=0.2).items():
        found.append(with_clip(labels={"labels": (dataclasses.replace(label, **{name: value}),)}))
    found += [digest(), digest(clips=listing.clips[:-1]), digest(notes=("x",)), digest(problems=[]), digest(title="x")]
    assert set(others) == {field.name for field in dataclasses.fields(Clip)}
    assert len(set(found)) == len(found) == 16 and digest() == digest()


def test_what_was_done_before_is_not_counted_as_work():
    text = io.StringIO()
    progress = Progress(100, 20, Console(file=text, width=200))
    progress.add(Spent(before=30))
    assert progress.speed() == ""
    progress.add(Spent(10, media=50.0, processor=5.0))
    assert progress.speed().startswith("10 clips in 0 s, 2.0 per second of a core: 50 s of media, 10.0 x real")
    progress._began -= 100
    progress._told -= 100
    progress.add(Spent())
    assert text.getvalue() == "60 of 100 clips, 0.1 clips/s, 0.5 x real time, 400 s left\n"


def test_some_splits_and_modalities(listing, media, tmp_path):
    out = tmp_path / "out"
    chosen = dict(splits=["test"], modalities=["audio"])
    info = prepare(listing, media, out, made.SMALL, **chosen, options=Options(execute=made.directly))
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
    options = Options(max_failed=0.3, execute=made.directly)
    prepare(dataclasses.replace(listing, clips=clips), media, tmp_path / "out", made.SMALL, 2, options=options)
    assert len(records(tmp_path / "out", "train")) == 17


def test_progress_under_beam_is_by_shards(listing, media, tmp_path, monkeypatch):
    beam = beam_module()
    monkeypatch.setattr(beam, "_LOOK", 0.01)
    found = plan.make_plan(listing, made.SMALL, PER_SHARD)
    job, progress = plan.Job(tmp_path, media, made.SMALL, found.schema), Progress(25, 0, Console(file=io.StringIO()))
    shards = {shard: found.pieces(shard, 3) for shard in found.shards()}
    counts = [progress._done]
    (tmp_path / "facts").mkdir()
    with beam._told(job, shards, progress):
        for shard in shards:
            facts_path(tmp_path, shard).touch()
            deadline = time.monotonic() + 20
            while progress._done == counts[-1] and time.monotonic() < deadline:
                time.sleep(0.005)
            counts.append(progress._done)
    assert counts == [0, 5, 13, 21, 25]
