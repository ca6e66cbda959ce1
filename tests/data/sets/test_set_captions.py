import json
from collections import Counter

import pytest

from mmr_jax.data.sets import load
from mmr_jax.errors import UserError

CAPTIONS = {
    "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 4, "file_name": "000000000004.jpg"}],
    "annotations": [{"id": 10 - i, "image_id": 9, "caption": f"caption {10 - i}\n"} for i in range(7)],
}
INSTANCES = {
    "images": CAPTIONS["images"],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}],
    "annotations": [{"id": i, "image_id": 9, "category_id": c} for i, c in enumerate((90, 1, 90))],
}


def test_real_label_file(shared, consistent):
    folder = shared("captioned_images")
    listing = consistent(load("captions", folder, folder))
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert len(listing.clips) == len(lines) == 71
    assert Counter(clip.split for clip in listing.clips) == {"val": 43, "train": 28}
    assert all((folder / clip.media).is_file() and len(clip.texts["text"]) == 5 for clip in listing.clips)
    assert [[x.name for x in c.labels["labels"]] for c in listing.clips] == [line["categories"] for line in lines]
    labels = listing.label_sets["labels"]
    assert labels.classes == tuple(sorted({name for line in lines for name in line["categories"]}))
    assert len(labels.classes) == 57 and labels.metric == "map" and listing.modalities == ("frames", "text")


def test_published_annotations(tree, consistent):
    folders = tree(
        {
            "labels/captions_val2017.json": json.dumps(CAPTIONS),
            "labels/instances_val2017.json": json.dumps(INSTANCES),
            "media/images/000000000009.jpg": "",
        }
    )
    nine, four = consistent(load("captions", *folders)).clips
    assert (nine.id, nine.split, nine.media) == ("000000000009", "val", "images/000000000009.jpg")
    assert nine.texts["text"] == tuple(f"caption {i}" for i in range(4, 9))  # five, by annotation id
    assert [label.name for label in nine.labels["labels"]] == ["person", "toothbrush"]
    assert (four.media, four.texts["text"], four.labels["labels"]) == ("val2017/000000000004.jpg", (), ())
    assert load("captions", *folders).label_sets["labels"].classes == ("person", "bicycle", "toothbrush")


@pytest.mark.parametrize(
    ("captions", "instances", "message"),
    [
        ("{}", json.dumps(INSTANCES), "'images' is None"),
        (json.dumps(CAPTIONS), None, "looked for instances_val2017.json"),
        (json.dumps(CAPTIONS), json.dumps({**INSTANCES, "categories": []}), "a category that it does not list"),
        (json.dumps({**CAPTIONS, "annotations": [{}]}), json.dumps(INSTANCES), "annotation 1: 'caption' is None"),
        ("[]", json.dumps(INSTANCES), "'images' is None"),
    ],
)
def test_bad_annotations(tree, captions, instances, message):
    files = {"labels/captions_val2017.json": captions}
    if instances:
        files["labels/instances_val2017.json"] = instances
    with pytest.raises(UserError, match=message):
        load("captions", *tree(files))


def test_bad_lines(tree):
    line = {"file": "a.jpg", "coco_split": "val2017", "captions": ["x"], "categories": [1]}
    with pytest.raises(UserError, match="line 1: captions and categories must be lists of strings"):
        load("captions", *tree({"labels/captions.jsonl": json.dumps(line)}))
    with pytest.raises(UserError, match="line 1: 'captions' is None; expected list"):
        load("captions", *tree({"labels/captions.jsonl": '{"file": "a.jpg", "coco_split": "val2017"}'}))
