from collections import Counter

import pytest

from mmr_jax.data.prepare.listing import Label
from mmr_jax.data.sets import load
from mmr_jax.errors import UserError


def test_real_label_files(shared, consistent, tree):
    listing = consistent(load("ave", shared("metadata/ave"), tree({"media/-ccciEuH9FE.mp4": ""})[1]))
    assert Counter(clip.split for clip in listing.clips) == {"train": 3339, "val": 402, "test": 402}
    assert len(listing.label_sets["labels"].classes) == 28 and listing.label_sets["labels"].metric == "top1"
    assert len({clip.source for clip in listing.clips}) == 4097
    pair = [clip for clip in listing.clips if clip.source == "-ccciEuH9FE"]
    assert [(c.id, c.media, c.labels["labels"]) for c in pair] == [
        ("-ccciEuH9FE", "-ccciEuH9FE.mp4", (Label("Male speech, man speaking", 5.0, 10.0),)),
        ("-ccciEuH9FE_2", "-ccciEuH9FE.mp4", (Label("Female speech, woman speaking", 5.0, 10.0),)),
    ]
    assert "4143 annotations of 4097 videos; 18 videos stand in two splits, as published" in listing.notes
    assert listing.problems == []
    labels = [label for clip in listing.clips for label in clip.labels["labels"]]
    assert all(label.end > label.start for label in labels)
    lines = (shared("metadata/ave") / "annotations_split.csv").read_text().splitlines()
    empty = sum(float(start) == float(end) for *_, start, end, _ in (line.rsplit(",", 4) for line in lines[1:]))
    assert len(listing.clips) - len(labels) == empty > 0
    assert f"annotations without duration, background throughout, no label: {empty}" in listing.notes


def test_an_event_without_duration_is_no_label(tree, consistent):
    files = {"labels/Annotations.txt": "Bark&a&good&0&0\nBark&b&good&4&4\nBark&c&good&4&5\n"}
    listing = consistent(load("ave", *tree(files)))
    assert [(c.id, c.labels["labels"]) for c in listing.clips] == [
        ("a", ()),
        ("b", ()),
        ("c", (Label("Bark", 4.0, 5.0),)),
    ]


def test_published_annotations_alone(shared, consistent, tree, tmp_path):
    real = shared("metadata/ave")
    content = "Category&VideoID&Quality&StartTime&EndTime\n" + (real / "Annotations.txt").read_text()
    listing = consistent(load("ave", *tree({"labels/Annotations.txt": content})))
    assert {clip.split for clip in listing.clips} == {"unsplit"}
    both = load("ave", real, tmp_path)
    assert [(c.id, c.labels) for c in listing.clips] == [(c.id, c.labels) for c in both.clips]


def test_lists_of_splits(tree, consistent):
    files = {
        "labels/trainSet.txt": "Church bell&a&good&0&10\nBark&b&good&2&5\n",
        "labels/testSet.txt": "Bark&a&good&3&4\n",
        "labels/Annotations.txt": "ignored where the lists are there",
    }
    listing = consistent(load("ave", *tree(files)))
    assert [(c.id, c.split, c.labels["labels"][0]) for c in listing.clips] == [
        ("a", "train", Label("Church bell", 0.0, 10.0)),
        ("b", "train", Label("Bark", 2.0, 5.0)),
        ("a_2", "test", Label("Bark", 3.0, 4.0)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [("Bark&a&good&5&4", "line 1: end 4 is before start 5"), ("Bark,a,good,0,1", "line 1 has 1 parts")],
)
def test_bad_lines(tree, line, message):
    with pytest.raises(UserError, match=message):
        load("ave", *tree({"labels/Annotations.txt": line}))
