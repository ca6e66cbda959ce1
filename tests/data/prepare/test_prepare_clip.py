"""One clip: what is read, what is missing and why, what is dropped."""

import dataclasses

import numpy as np
import prepare_files as made
import pytest

from mmr_jax.data.prepare.clip import Preparer, is_image
from mmr_jax.data.prepare.listing import Clip, Label
from mmr_jax.data.prepare.records import Decoder, Schema
from mmr_jax.errors import UserError

SCHEMA = Schema({"labels": made.CLASSES}, ("text",))
CLIP = Clip("a", "train", "a.mp4", texts={"text": ("a dog", " ")}, labels={"labels": (Label("owl"),)})


def prepare(folder, clip, modalities=("audio", "frames", "text")):
    schema = dataclasses.replace(SCHEMA, modalities=modalities, texts=SCHEMA.texts if "text" in modalities else ())
    outcome = Preparer(folder, made.SMALL, schema).prepare(clip)
    return outcome, outcome.record and Decoder(schema.features).decode(outcome.record)


def test_a_whole_clip(tmp_path):
    made.write_mp4(tmp_path / "a.mp4")
    outcome, example = prepare(tmp_path, CLIP)
    assert outcome.problems == () and len(example["frames"]) == 2
    np.testing.assert_allclose(example["frame_times"], [0.25, 0.75], atol=0.051)
    assert 8000 <= len(example["audio"]) <= 8000 + 1024 and example["audio"].std() > 100  # AAC fills its last frame
    assert example["texts"] == {"text": ["a dog"]} and example["source"] == "a.mp4"
    numbers, starts, ends = example["labels"]["labels"]
    assert numbers.tolist() == [2] and starts.tolist() == [0] and ends.tolist() == [np.float32(example["duration"])]
    assert outcome.row["present"] == [True] * 3 and outcome.row["labels"] == {"labels": [2]}
    assert outcome.row["duration"] == len(example["audio"]) / 8000


def test_a_cut_is_that_of_the_source(tmp_path):
    pcm = made.write_wav(tmp_path / "a.wav", 2.0)
    clip = Clip("a", "train", "a.wav", 0.5, 1.25, labels={"labels": (Label("cat", 0.1, 0.2), Label("dog", 0.3))})
    outcome, example = prepare(tmp_path, clip, ("audio",))
    np.testing.assert_array_equal(example["audio"], pcm[4000:10000])
    assert example["duration"] == 0.75 and outcome.problems == ()
    np.testing.assert_array_equal(example["labels"]["labels"][2], np.float32([0.2, 0.75]))


@pytest.mark.parametrize("lacks, reason", [("audio", "no audio track"), ("frames", "no video track")])
def test_without_a_track_it_is_kept_and_noted(tmp_path, lacks, reason):
    made.write_mp4(tmp_path / "a.mp4", video=lacks != "frames", audio=lacks != "audio")
    outcome, example = prepare(tmp_path, CLIP)
    assert [p[:3] for p in outcome.problems] == [("a", lacks, reason)] and not len(example[lacks])
    assert outcome.row["present"] == [lacks != "audio", lacks != "frames", True]
    assert example["duration"] == pytest.approx(1, abs=0.15)  # by the frames if there is no sound


def test_an_image_whatever_its_name(tmp_path):
    made.write_jpeg(tmp_path / "a.mp4")
    outcome, example = prepare(tmp_path, CLIP)
    assert is_image(tmp_path / "a.mp4") and not is_image(tmp_path / "absent.jpg")
    assert [p[1:3] for p in outcome.problems] == [("audio", "no audio track")]
    assert len(example["frames"]) == 1 and example["frame_times"].tolist() == [0] and example["duration"] == 0


def test_no_text_is_noted(tmp_path):
    made.write_mp4(tmp_path / "a.mp4")
    outcome, _ = prepare(tmp_path, dataclasses.replace(CLIP, texts={"text": ("  ",)}))
    assert [p[:3] for p in outcome.problems] == [("a", "text", "no text")] and outcome.row["present"][2] is False


def test_text_does_not_keep_a_clip_without_media(tmp_path):
    outcome, example = prepare(tmp_path, CLIP)
    assert example is None and [p[:3] for p in outcome.problems] == [("a", "clip", "missing file")]
    (tmp_path / "a.mp4").write_bytes(b"")
    assert prepare(tmp_path, CLIP)[0].problems[0][1:3] == ("clip", "empty file")
    (tmp_path / "a.mp4").write_bytes(b"<html>no such video</html>" * 9)
    assert prepare(tmp_path, CLIP)[0].problems[0][1:3] == ("clip", "not media")


def test_different_reasons_are_one_line(tmp_path):
    made.write_jpeg(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    (problem,) = prepare(tmp_path, CLIP, ("audio", "frames"))[0].problems
    assert problem[1:3] == ("clip", "no audio track") and "frames: truncated" in problem[3]


def test_text_alone_where_nothing_else_is_meant(tmp_path):
    outcome, example = prepare(tmp_path, CLIP, ("text",))
    assert outcome.problems == () and example["texts"]["text"] == ["a dog"] and not len(example["frames"])
    outcome, _ = prepare(tmp_path, dataclasses.replace(CLIP, texts={}), ("text",))
    assert [p[:3] for p in outcome.problems] == [("a", "clip", "no text")]


def test_a_label_of_no_class(tmp_path):
    made.write_wav(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="label 'bat', which is no class of labels"):
        prepare(tmp_path, dataclasses.replace(CLIP, labels={"labels": (Label("bat"),)}), ("audio",))
