import numpy as np
import pytest

from mmr_jax.data.source import Cached, Subset, load_dataset, stack, take
from mmr_jax.errors import UserError


class Numbers:
    """Records that hold their own index; counts how often each is read."""

    def __init__(self, size, broken=(), multilabel=False):
        self.size, self.broken, self.multilabel = size, broken, multilabel
        self.reads = []

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError("bad block")
        self.reads.append(i)
        present = i % 3 != 0
        return {
            "inputs": {"a": np.full((4,), i, np.int16), "b": np.full((2, 2), i % 256 * present, np.uint8)},
            "present": {"a": True, "b": present},
            "length": {"a": i % 5, "b": int(present)},
            "label": np.eye(3, dtype=np.float32)[i % 3] if self.multilabel else i % 3,
            "id": i,
        }


def assert_same(left, right):
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, dict):
            assert_same(value, right[key])
        else:
            assert np.asarray(value).dtype == np.asarray(right[key]).dtype, key
            np.testing.assert_array_equal(value, right[key])


def test_stack_shapes_and_types():
    source = Numbers(6)
    batch = stack([source[i] for i in range(6)])
    assert batch["inputs"]["a"].shape == (6, 4) and batch["inputs"]["a"].dtype == np.int16
    assert batch["present"]["b"].tolist() == [False, True, True, False, True, True]
    assert batch["length"]["a"].dtype == np.int32 and batch["label"].dtype == np.int32
    assert batch["weight"].dtype == np.float32 and batch["weight"].tolist() == [1] * 6
    assert batch["id"].dtype == np.int32


def test_stack_keeps_multilabel_targets_as_floats():
    batch = take(Numbers(4, multilabel=True), [1, 2])
    assert batch["label"].dtype == np.float32 and batch["label"].shape == (2, 3)


def test_stack_of_nothing_is_refused():
    with pytest.raises(UserError, match="no records"):
        stack([])


@pytest.mark.parametrize("multilabel", [False, True])
def test_cached_answers_like_its_source_and_reads_each_record_once(multilabel):
    source = Numbers(600, multilabel=multilabel)
    cached = Cached(source)
    assert source.reads == []
    rows = [5, 599, 0, 5]
    batch = cached.take(rows)
    assert sorted(source.reads) == list(range(600))
    assert_same(batch, take(Numbers(600, multilabel=multilabel), rows))
    assert_same(cached[6], source[6])
    with pytest.raises(IndexError):
        cached[600]


def test_cached_arrays_are_not_shared_with_batches():
    cached = Cached(Numbers(5))
    cached.take([1])["inputs"]["a"][:] = 77
    cached[1]["inputs"]["a"][:] = 77
    assert cached.take([1])["inputs"]["a"].max() == 1


def test_subset_selects_in_order():
    for source in (Numbers(10), Cached(Numbers(10))):
        subset = Subset(source, [7, 2, 9])
        assert len(subset) == 3 and subset[1]["id"] == 2
        assert subset.take([2, 0])["id"].tolist() == [9, 7]


def test_unreadable_record_is_named():
    with pytest.raises(UserError, match="record 3 cannot be read: OSError: bad block"):
        take(Numbers(5, broken=[3]), [1, 3])
    with pytest.raises(UserError, match="record 3"):
        Cached(Numbers(5, broken=[3])).take([0])


def test_unknown_data_set_and_option_name_the_nearest():
    with pytest.raises(UserError, match="did you mean 'synthetic'"):
        load_dataset({"name": "syntetic"}, {})
    with pytest.raises(UserError, match="data.labeled .* did you mean 'labelled'"):
        load_dataset({"name": "synthetic", "labeled": 3}, {})
