import re
from collections import Counter

import pytest

from mmr_jax.data.sets import load
from mmr_jax.errors import UserError

INDICES = 'index,mid,display_name\n1,/m/b,"Male speech, man speaking"\n0,/m/a,"Speech"\n2,/m/c,Zither\n'
PUBLISHED = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=2, num_segs=2, num_unique_labels=2, num_positive_labels=3
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/b,/m/a,/m/b"
-0O3e95y4gE, 239.800, 249.800, "/m/a"
"""
COPY = 'YTID,start_seconds,end_seconds,positive_labels\n--PJHxphWEs,30.000,40.000,"/m/b,/m/a,/m/b"\n'
COPY += "-0O3e95y4gE,239.800,249.800,/m/a\n"


def test_real_label_files(shared, consistent, tmp_path):
    folder = shared("metadata/audioset")
    listing = consistent(load("audioset", folder, tmp_path))
    assert Counter(clip.split for clip in listing.clips) == {"balanced": 22160, "eval": 20371}
    labels = listing.label_sets["labels"]
    assert len(labels.classes) == 527 and labels.multilabel and labels.metric == "map"
    assert (labels.classes[0], labels.classes[1]) == ("Speech", "Male speech, man speaking")
    assert listing.modalities == ("audio", "frames") and listing.problems == []
    # Counted another way: every identifier of a label in the file is one label of a clip.
    text = (folder / "eval_segments.csv").read_text()
    ids = len(re.findall(r"/[mgt]/\w+", text))
    assert sum(len(c.labels["labels"]) for c in listing.clips if c.split == "eval") == ids


def test_both_forms_say_the_same(tree, consistent):
    folders = tree({"labels/class_labels_indices.csv": INDICES, "labels/balanced_train_segments.csv": PUBLISHED})
    first = consistent(load("audioset", *folders))
    tree({"labels/balanced_train_segments.csv": COPY})
    assert load("audioset", *folders).clips == first.clips
    assert [c.id for c in first.clips] == ["--PJHxphWEs_030000", "-0O3e95y4gE_239800"]
    assert [label.name for label in first.clips[0].labels["labels"]] == ["Male speech, man speaking", "Speech"]
    assert first.label_sets["labels"].classes == ("Speech", "Male speech, man speaking", "Zither")


def test_media_and_all_three_splits(tree):
    files = ["--PJHxphWEs_30000_40000.mkv", "deep/-0O3e95y4gE.mp4"]
    labels, media = tree(
        {
            "labels/class_labels_indices.csv": INDICES,
            "labels/unbalanced_train_segments.csv": PUBLISHED,
            "labels/eval_segments.csv": "YTID,a,b,c\nabsent00000,0,9,/m/c\n",
            **{f"media/{name}": "" for name in files},
        }
    )
    clips = load("audioset", labels, media).clips
    assert [(c.split, c.media, c.start, c.end, c.source) for c in clips] == [
        ("unbalanced", files[0], 0.0, None, "--PJHxphWEs"),
        ("unbalanced", files[1], 239.8, 249.8, "-0O3e95y4gE"),
        ("eval", "absent00000.mp4", 0.0, None, "absent00000"),
    ]


def test_titles(tree, consistent):
    titles = b"\xef\xbb\xbfid,title\r\n--PJHxphWEs,na\xefve\r\n"
    folders = tree(
        {
            "labels/class_labels_indices.csv": INDICES,
            "labels/eval_segments.csv": PUBLISHED,
            "labels/titles.csv": titles,
        }
    )
    listing = consistent(load("audioset", *folders))
    assert [c.texts["text"] for c in listing.clips] == [("naïve",), ()]
    assert listing.modalities == ("audio", "frames", "text")
    assert [p[:3] for p in listing.problems] == [("--PJHxphWEs_030000", "clip", "text not UTF-8")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v,0,10,/m/zz", "line 1: label '/m/zz' is not in class_labels_indices.csv"),
        ("v,0,10,/m/a,/m/b", "line 1 has 5 cells"),
        ("v,x,10,/m/a", "line 1: start is 'x'"),
        ("v,10,10,/m/a", "line 1: end 10 is not after start 10"),
    ],
)
def test_bad_lines(tree, line, message):
    folders = tree({"labels/class_labels_indices.csv": INDICES, "labels/eval_segments.csv": line})
    with pytest.raises(UserError, match=message):
        load("audioset", *folders)


def test_classes_are_needed(tree):
    with pytest.raises(UserError, match="looked for class_labels_indices.csv"):
        load("audioset", *tree({"labels/eval_segments.csv": PUBLISHED}))
