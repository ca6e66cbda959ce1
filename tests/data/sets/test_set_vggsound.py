import csv
from collections import defaultdict

import pytest

from mmr_jax.data.sets import load
from mmr_jax.errors import UserError

STAT = 'zebra braying,199,animals\r\n"bird chirping, tweeting",1050,animals\r\nair horn,197,vehicle'
SOUNDER = "video_id,label,modality,background_music,static_image,voice_over\n"


def test_real_label_files(shared, consistent, tmp_path):
    folder = shared("metadata/vggsound")
    listing = consistent(load("vggsound", folder, tmp_path))
    assert len(listing.clips) == 15446 and {c.split for c in listing.clips} == {"test"}
    assert {name: (len(s.classes), s.metric) for name, s in listing.label_sets.items()} == {
        "labels": (309, "top1"),
        "sounder": (309, "map"),
        "audible": (309, "map"),
        "visible": (309, "map"),
    }
    by_modality = defaultdict(set)
    with (folder / "vggsounder.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            by_modality[row["modality"]].add((row["video_id"], row["label"]))
    pairs = {
        name: {(c.id, label.name) for c in listing.clips for label in c.labels[name]}
        for name in ("sounder", "audible", "visible")
    }
    assert pairs["audible"] == by_modality["A"] | by_modality["AV"]
    assert pairs["visible"] == by_modality["V"] | by_modality["AV"]
    assert pairs["sounder"] == pairs["audible"] | pairs["visible"] and len(pairs["sounder"]) == 29509
    assert "VGGSounder has labels for 12014 of 15446 test clips; the others have none there" in listing.notes


def test_both_lists_say_the_same(tree, consistent):
    files = {
        "labels/stat.csv": STAT,
        "labels/vggsounder.csv": SOUNDER + "-0B_cd_000030,air horn,A,False,False,False\n",
        "labels/test.csv": '-0B_cd_000030.mp4,"bird chirping, tweeting"\r\n',
        "labels/train.csv": "xyz_000177.mp4,air horn\r\n",
        "media/video/-0B_cd_000030.mp4": "",
        "media/xyz.webm": "",
    }
    folders = tree(files)
    two = consistent(load("vggsound", *folders))
    (folders[0] / "train.csv").unlink()
    tree({"labels/vggsound.csv": 'xyz,177,air horn,train\n-0B_cd,30,"bird chirping, tweeting",test\n'})
    four = load("vggsound", *folders)
    assert four.clips == two.clips and four.label_sets == two.label_sets
    train, test = four.clips
    assert (train.media, train.start, train.end, train.split) == ("xyz.webm", 177.0, 187.0, "train")
    assert (test.media, test.start, test.end, test.source) == ("video/-0B_cd_000030.mp4", 0.0, None, "-0B_cd")
    assert [label.name for label in test.labels["audible"]] == ["air horn"]
    assert test.labels["visible"] == train.labels["sounder"] == ()
    assert four.label_sets["visible"].classes == ("air horn", "bird chirping, tweeting", "zebra braying")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"test.csv": "xyz.mp4,air horn\n"}, "line 1: 'xyz.mp4'; expected"),
        ({"test.csv": "a_000001.mp4,bird chirping, tweeting\n"}, "line 1: 'a_000001.mp4'; expected"),
        ({"test.csv": "a_000001.mp4,air hron\n"}, "'air hron' is no class; did you mean 'air horn'"),
        ({"vggsound.csv": "xyz,177,air horn,val\n"}, "expected video, start, label and train or test"),
        ({"vggsound.csv": "xyz,one,air horn,test\n"}, "line 1: start is 'one'"),
        ({"test.csv": "a_000001.mp4,air horn\n", "vggsounder.csv": SOUNDER + "x,air horn,B,0,0,0\n"}, "A, V or AV"),
    ],
)
def test_bad_lines(tree, files, message):
    with pytest.raises(UserError, match=message):
        load("vggsound", *tree({"labels/stat.csv": STAT, **{f"labels/{k}": v for k, v in files.items()}}))
