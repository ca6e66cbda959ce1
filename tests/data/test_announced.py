"""Announced data sets: sizes and classes are there, records are not."""

import pytest

from mmr_jax import config as configs
from mmr_jax.data.source import default_config, labels_of, load_dataset, take
from mmr_jax.errors import UserError

SIZES = {"unlabelled": 30, "labelled": 20, "test": 10}
MODALITIES = {"audio": configs.spectrogram(), "text": configs.text()}


def load(**changes):
    return load_dataset({**default_config("prepared"), "sizes": SIZES, **changes}, MODALITIES)


@pytest.mark.parametrize(
    "name, classes, metric",
    [
        ("audioset", 527, "map"),
        ("vggsound", 309, "top1"),
        ("kinetics400", 400, "top1"),
        ("imagenet_captions", 999, "top1"),
    ],
)
def test_what_is_known(name, classes, metric):
    found = load(dataset=name)
    assert {split: len(source) for split, source in found.splits.items()} == {**SIZES, "val": 10}
    assert len(set(found.class_names)) == classes
    assert (found.metric, found.multilabel) == (metric, metric == "map")
    assert found.modalities == ("audio", "text")


@pytest.mark.parametrize("read", [lambda s: s[0], lambda s: take(s, [1, 2]), labels_of], ids=["one", "many", "labels"])
def test_reading_a_record_is_one_clear_line(read):
    expected = r"^data.folder is empty: AudioSet is read from a folder that mmr prepare writes$"
    for source in load(dataset="audioset").splits.values():
        with pytest.raises(UserError, match=expected):
            read(source)


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="data.folder is empty"):
        load()
    with pytest.raises(UserError, match="data.dataset is 'audiosett'.*set data.folder"):
        load(dataset="audiosett")
    with pytest.raises(UserError, match="data.sizes.labelled is 0; without data.folder"):
        load(dataset="vggsound", sizes={**SIZES, "labelled": 0})
    with pytest.raises(UserError, match="data.classes is no option"):
        load(dataset="vggsound", classes=3)
