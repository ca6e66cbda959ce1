import csv
from collections import Counter

import pytest

from mmr_jax.data.sets import load
from mmr_jax.errors import UserError

ALIGN = "0 12250 sil\n12250 19250 set\n19250 27250 white\n27250 30500 with\n30500 36000 p\n"
ALIGN += "36000 43250 two\n43250 44000 sp\n44000 55250 soon\n55250 74500 sil\n"
CLASSES = {"command": 4, "color": 4, "preposition": 4, "letter": 25, "digit": 10, "adverb": 4, "talker": 1}


def test_real_label_file(shared, consistent, tmp_path):
    folder = shared("grid_s1")
    listing = consistent(load("grid", folder, folder))
    assert Counter(clip.split for clip in listing.clips) == {"train": 630, "test": 210}
    assert {name: len(s.classes) for name, s in listing.label_sets.items()} == CLASSES
    assert all((folder / clip.media).is_file() for clip in listing.clips)
    with (folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for clip, row in zip(listing.clips, rows, strict=True):
        assert clip.id == f"s1_{row['id']}" and clip.split == row["split"]
        assert clip.texts["text"] == (row["text"],) and clip.texts["no_digit"] == (row["text_no_digit"],)
        for name in CLASSES:
            assert clip.labels[name][0].name == row["speaker" if name == "talker" else name]
        for name in set(CLASSES) - {"talker", "digit"}:
            without = clip.texts[f"no_{name}"][0].split()
            assert row[name] not in without and len(without) == 5


def test_published_alignments(tree, consistent):
    folders = tree(
        {
            "labels/s1/align/swwp2s.align": ALIGN,
            "labels/alignments/s2/swwp2s.align": ALIGN.replace("two", "zero"),
            "media/s2/swwp2s.mpg": "",
            "media/s1.mpg_6000/s1/swwp2s.mpg": "",
        }
    )
    listing = consistent(load("grid", *folders))
    two, one = listing.clips
    assert (one.id, one.media) == ("s1_swwp2s", "s1.mpg_6000/s1/swwp2s.mpg")
    assert (two.id, two.media) == ("s2_swwp2s", "s2/swwp2s.mpg")
    assert one.texts["text"] == ("set white with p two soon",) and one.texts["no_color"] == ("set with p two soon",)
    assert [c.labels["digit"][0].name for c in (one, two)] == ["2", "0"]
    assert listing.label_sets["talker"].classes == ("s1", "s2")


def test_names_that_are_no_utf8(tree):
    folders = tree({"labels/s\udce9/align/\udce8.align": ALIGN, "media/s\udce9/\udce8.mpg": ""})
    (clip,) = load("grid", *folders).clips
    assert (clip.id, clip.source, clip.media) == ("s\\xe9_\\xe8", "s\\xe9/\\xe8.mpg", "s\udce9/\udce8.mpg")
    assert clip.labels["talker"][0].name == "s\\xe9"


def test_splits_of_alignments(tree):
    folders = tree({f"labels/s{t}/align/a{i}.align": ALIGN for t in range(8) for i in range(100)})
    clips = load("grid", *folders).clips
    assert 150 < sum(clip.split == "test" for clip in clips) < 250  # one in four of 800, standard deviation 12


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.align": ALIGN}, "folder named after its talker"),
        ({"s1/x.align": ALIGN.replace("two", "dva")}, "'set white with p dva soon' is no sentence"),
        ({"s1/x.align": ""}, "'' is no sentence"),
        ({"index.csv": "file,id,speaker,text\na,b,c,d\n"}, "no column 'split'"),
        ({"index.csv": "file,id,speaker,text,split\na.mp4,b,c,d e,train\n"}, "line 2: 'd e' is no sentence"),
    ],
)
def test_bad_files(tree, files, message):
    with pytest.raises(UserError, match=message):
        load("grid", *tree({f"labels/{name}": content for name, content in files.items()}))
