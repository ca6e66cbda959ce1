import csv
from collections import Counter

import pytest

from mmr_jax.data.sets import load
from mmr_jax.errors import UserError

ESC50 = """filename,fold,target,category,esc10,src_file,take
1-100032-A-0.wav,1,0,dog,True,100032,A
5-9032-A-36.wav,5,36,vacuum_cleaner,False,9032,A
5-9032-B-1.wav,5,1,rooster,False,9032,B
"""


def test_real_label_file(shared, consistent):
    folder = shared("esc10")
    listing = consistent(load("esc", folder, folder))
    assert len(listing.clips) == 400 and all((folder / clip.media).is_file() for clip in listing.clips)
    per_class = Counter((c.split, c.labels["labels"][0].name) for c in listing.clips)
    assert set(per_class.values()) == {8, 32} and len(per_class) == 20
    assert listing.label_sets["labels"].classes[:2] == ("dog", "rooster")
    assert len(listing.label_sets["labels"].classes) == 10 and listing.modalities == ("audio",)
    with (folder / "index.csv").open(newline="") as file:
        known = {row["file"]: row for row in csv.DictReader(file) if row["esc50_fold"]}
    assert len(known) == 40
    for clip in listing.clips:
        if clip.media in known:
            assert (clip.split == "test") == (known[clip.media]["esc50_fold"] == "5")
            assert clip.source == known[clip.media]["esc50_name"].split("-")[1]
    assert any(note.startswith("360 clips have no known fold") for note in listing.notes)


def test_published_list(tree, consistent):
    listing = consistent(load("esc", *tree({"labels/esc50.csv": ESC50, "media/audio/5-9032-A-36.flac": ""})))
    assert [(c.id, c.split, c.media, c.source) for c in listing.clips] == [
        ("1-100032-A-0", "train", "audio/1-100032-A-0.wav", "100032"),
        ("5-9032-A-36", "test", "audio/5-9032-A-36.flac", "9032"),
        ("5-9032-B-1", "test", "audio/5-9032-B-1.wav", "9032"),
    ]
    assert listing.label_sets["labels"].classes == ("dog", "rooster", "vacuum_cleaner")
    assert len(listing.notes) == 1


@pytest.mark.parametrize(("old", "new"), [(",1,0,dog", ",6,0,dog"), (",1,0,dog", ",1,,dog")])
def test_bad_folds_and_targets(tree, old, new):
    with pytest.raises(UserError, match="line 2: target .*, fold .*; expected numbers"):
        load("esc", *tree({"labels/esc50.csv": ESC50.replace(old, new)}))
