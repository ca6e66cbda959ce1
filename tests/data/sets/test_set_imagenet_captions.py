import json

import pytest

from mmr_jax.data.sets import load
from mmr_jax.errors import UserError


def rows(count=3000):
    return [
        {
            "filename": f"n0144{i % 7:04d}_{i}.JPEG",
            "wnid": f"n0144{i % 7:04d}",
            "title": f"title {i} ",
            "description": "two\nlines" if i % 2 else None,
            "tags": ["fish", "red"] if i % 3 else [],
        }
        for i in range(count)
    ]


def test_published_form(tree, consistent):
    content = json.dumps(rows())
    files = {"labels/imagenet_captions.json": content, "media/train/n01440001/n01440001_1.JPEG": ""}
    folders = tree(files)
    listing = consistent(load("imagenet_captions", *folders))
    assert len(listing.clips) == 3000 and listing.problems == []
    first, second = listing.clips[:2]
    assert (first.media, second.media) == ("n01440000/n01440000_0.JPEG", "train/n01440001/n01440001_1.JPEG")
    assert first.texts == {"text": ("title 0",), "all": ("title 0",)}
    assert second.texts == {"text": ("title 1",), "all": ("title 1 two lines fish red",)}
    assert listing.label_sets["labels"].classes == tuple(f"n0144{i:04d}" for i in range(7))
    # One in five: 600 of 3000, standard deviation 22.
    assert 500 < sum(clip.split == "test" for clip in listing.clips) < 700


def test_a_split_depends_on_the_name_alone(tree):
    folders = tree({"labels/imagenet_captions.json": json.dumps(rows(200))})
    splits = {c.id: c.split for c in load("imagenet_captions", *folders).clips}
    tree({"labels/imagenet_captions.json": json.dumps(rows(400)[::-1])})
    more = {c.id: c.split for c in load("imagenet_captions", *folders).clips}
    assert splits.items() <= more.items()


def test_messes(tree):
    twice = [*rows(2), rows(1)[0]]
    twice[1]["title"] = None
    folders = tree({"labels/imagenet_captions.json": json.dumps(twice)})
    listing = load("imagenet_captions", *folders)
    assert [p[:3] for p in listing.problems] == [("n01440000_0", "clip", "duplicate id")]
    assert listing.clips[1].texts["text"] == ()
    for content, message in (
        ("{}", "must be a list"),
        ("[]", "must be a list"),
        ('[{"filename": "x"}]', "image 1: 'wnid' is None"),
        ("[3]", "image 1: 'filename' is None"),
        ('[{"filename": "x", "wnid": "n", "tags": "a"}]', "tags a list"),
        ("[", "is no JSON"),
    ):
        tree({"labels/imagenet_captions.json": content})
        with pytest.raises(UserError, match=message):
            load("imagenet_captions", *folders)
