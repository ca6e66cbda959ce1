import numpy as np
import pytest
from test_source import Numbers, assert_same

from mmr_jax.data import avdigits, pipeline
from mmr_jax.data.balanced import Balanced, sample_weights
from mmr_jax.data.draws import splitmix64, uniform_at
from mmr_jax.data.source import Cached, Subset, classes_of, labels_of, load_dataset, map_batch, take
from mmr_jax.errors import UserError


def test_splitmix64_gives_its_published_sequence():
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(1234567, np.arange(4)).tolist() == expected
    assert splitmix64(1234567, np.array([2, 0])).tolist() == [expected[2], expected[0]]


def test_uniform_numbers_are_spread_evenly():
    draws = np.stack([uniform_at(seed, np.arange(20_000)) for seed in (0, 1)])
    assert (draws >= 0).all() and (draws < 1).all()
    counts = np.stack([np.bincount((row * 20).astype(int), minlength=20) for row in draws])
    assert np.abs(counts - 1000).max() < 150
    assert abs(np.corrcoef(draws)[0, 1]) < 0.03 and abs(np.corrcoef(draws[0, 1:], draws[0, :-1])[0, 1]) < 0.03


class Labelled(Numbers):
    """Numbers with given labels."""

    def __init__(self, labels):
        super().__init__(len(labels))
        self.given = labels

    def __getitem__(self, i):
        return {**super().__getitem__(i), "label": self.given[i], "id": 100 + i}


def test_weights_by_brute_force():
    single = np.array([0, 2, 2, 0, 2])
    expected = [1000 / (np.sum(single == y) + 0.01) for y in single]
    np.testing.assert_allclose(sample_weights(*classes_of(Labelled(single))), expected)
    several = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    expected = [sum(1000 / (several[:, c].sum() + 0.01) for c in np.flatnonzero(row)) for row in several]
    np.testing.assert_allclose(sample_weights(*classes_of(Labelled(several))), expected)
    twice = np.array([0, 2, 2, 2, 0, 2]), np.array([0, 2, 4, 4, 5, 6])  # the second example has its label twice
    np.testing.assert_allclose(sample_weights(*twice), expected)


def test_draws_follow_the_weights():
    labels = np.array([[1, 0], [0, 1], [0, 0], [1, 0], [1, 1], [1, 0]], np.float32)
    drawn = Balanced(Labelled(labels)).order_at(3, np.arange(60_000))
    share = np.bincount(drawn, minlength=6) / len(drawn)
    weights = sample_weights(*classes_of(Labelled(labels)))
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.01)
    assert share[2] == 0


def test_a_batch_is_a_pure_function_of_seed_and_step_on_any_number_of_hosts():
    source = Balanced(Labelled(np.arange(30) % 7))
    for step in range(4):
        whole = pipeline.batch_at(source, 8, 5, step)
        assert whole["id"].tolist() == (100 + source.order_at(5, np.arange(8 * step, 8 * step + 8))).tolist()
        parts = [pipeline.batch_at(source, 8, 5, step, rows) for rows in np.split(np.arange(8), 4)]
        assert_same(map_batch(lambda a: a[2:4], whole), parts[1])
    later = list(pipeline.train_iterator(source, 8, 5, 2, 4))
    assert_same(later[1], pipeline.batch_at(source, 8, 5, 3))
    assert len(source) == 30 and source[3]["id"] == 103 and source.take([4])["id"].tolist() == [104]
    assert source.order_at(5, np.arange(50)).tolist() != source.order_at(6, np.arange(50)).tolist()


def test_a_set_without_labels_is_refused():
    with pytest.raises(UserError, match="finetune.balanced: no example"):
        Balanced(Labelled(np.zeros((4, 3), np.float32)))


@pytest.mark.parametrize("multilabel", [False, True])
def test_labels_of_any_source(multilabel):
    plain = Numbers(300, multilabel=multilabel)
    batch = take(plain, range(300))
    rows = [7, 2, 290]
    for source in (plain, Cached(plain)):
        label, ids = labels_of(source)
        np.testing.assert_array_equal(label, batch["label"])
        np.testing.assert_array_equal(ids, batch["id"])
        label, ids = labels_of(Subset(source, rows))
        np.testing.assert_array_equal(label, batch["label"][rows])
        assert ids.tolist() == rows and ids.dtype == np.int32


def test_labels_of_the_synthetic_world_need_no_rendering(monkeypatch):
    modalities = {"text": {"kind": "text", "length": 48, "vocab_size": 259}}
    split = load_dataset({"name": "synthetic", "labelled": 50}, modalities).splits["labelled"]
    read = take(split._source, range(50))
    monkeypatch.setattr("mmr_jax.data.synthetic_text.CaptionRenderer.__call__", lambda *_: pytest.fail("rendered"))
    label, ids = labels_of(Subset(split, range(50)))
    np.testing.assert_array_equal(label, read["label"])
    assert ids.tolist() == read["id"].tolist() and label.dtype == np.int32


def test_labels_of_digits_are_those_of_its_records():
    image = np.zeros((28, 28, 1), np.uint8)
    examples = [{"label": y, "image": image, "audio": np.zeros(4, np.int16)} for y in (3, 1, 9)]
    pairs = avdigits._Pairs(examples, {"image": {"kind": "image"}})
    label, ids = labels_of(pairs)
    np.testing.assert_array_equal(label, take(pairs, range(3))["label"])
    assert ids.tolist() == [0, 1, 2]
