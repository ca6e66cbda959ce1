import pytest

from mmr_jax.data.sets import load
from mmr_jax.errors import UserError

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def test_real_label_files(shared, consistent, tmp_path):
    folder = shared("metadata/kinetics")
    listing = consistent(load("kinetics400", folder, tmp_path))
    lines = (folder / "kinetics-400_val.csv").read_text().splitlines()[1:]
    assert len(listing.clips) == len(lines) == 19906 and {c.split for c in listing.clips} == {"val"}
    assert [c.labels["labels"][0].name for c in listing.clips] == [line.split(",")[0].strip('"') for line in lines]
    labels = listing.label_sets["labels"]
    assert labels.classes == tuple((folder / "label_map_k400.txt").read_text().splitlines())
    assert len(labels.classes) == 400 and labels.metric == "top1"


def test_files_splits_and_a_row_without_label(tree, consistent):
    folders = tree(
        {
            "labels/train.csv": HEADER + "abseiling,0wR5jVB-WPk,417,427,train,0\n",
            "labels/validate.csv": HEADER + "archery,v,7,17,val,0\n",
            "labels/test.csv": HEADER + ",w,7,17,test,0\n",
            "media/train/abseiling/0wR5jVB-WPk_000417_000427.mp4": "",
        }
    )
    listing = consistent(load("kinetics400", *folders))
    assert [(c.split, c.media) for c in listing.clips] == [
        ("train", "train/abseiling/0wR5jVB-WPk_000417_000427.mp4"),
        ("val", "v_000007_000017.mp4"),
        ("test", "w_000007_000017.mp4"),
    ]
    assert listing.clips[0].source == "0wR5jVB-WPk" and listing.clips[2].labels["labels"] == ()
    assert listing.label_sets["labels"].classes == ("abseiling", "archery")
    assert "classes by the labels that occur" in listing.notes


def test_a_label_outside_the_map(tree):
    files = {"labels/val.csv": HEADER + "archary,v,7,17,val,0\n", "labels/label_map.txt": "abseiling\narchery\n"}
    with pytest.raises(UserError, match="line 2: 'archary' is no class; did you mean 'archery'"):
        load("kinetics400", *tree(files))
    tree({"labels/val.csv": "label,youtube_id,time_begin,time_end\nx,v,1,2\n"})
    with pytest.raises(UserError, match="no column 'time_start'"):
        load("kinetics400", *tree({}))
