import threading

import numpy as np
import pytest
from test_source import Numbers, assert_same

from mmr_jax.data import pipeline
from mmr_jax.data.source import Cached
from mmr_jax.errors import UserError
from mmr_jax.seeds import fold_seed


def concatenated(parts):
    first = parts[0]
    if isinstance(first, dict):
        return {k: concatenated([p[k] for p in parts]) for k in first}
    return np.concatenate(parts)


def test_fold_seed_is_stable_and_tells_names_apart():
    assert fold_seed(0, "a", 1) == fold_seed(np.int64(0), "a", np.int32(1)) == 3536820368
    seeds = {
        fold_seed(0),
        fold_seed(1),
        fold_seed(0, "a"),
        fold_seed(0, 1),
        fold_seed(0, "1"),
        fold_seed(0, "a", "b"),
    }
    assert len(seeds) == 6 and all(0 <= s < 2**32 for s in seeds)


@pytest.mark.parametrize("size", [1, 2, 7, 300])
def test_every_epoch_is_a_permutation(size):
    order = pipeline.order_at(size, 3, np.arange(20 * size)).reshape(20, size)
    assert (np.sort(order, axis=1) == np.arange(size)).all()
    if size >= 7:
        assert len({tuple(epoch) for epoch in order.tolist()}) == 20


def test_order_is_spread_evenly_and_depends_on_the_seed():
    first = np.array([pipeline.order_at(50, seed, np.arange(4)) for seed in range(2000)])
    counts = np.stack([np.bincount(first[:, k], minlength=50) for k in range(4)])
    assert counts.min() > 10 and counts.max() < 80  # 40 expected


def test_batch_is_a_pure_function_of_seed_and_step():
    source = Numbers(10)
    batch = pipeline.batch_at(source, 4, 0, 7)
    assert_same(batch, pipeline.batch_at(Cached(Numbers(10)), 4, 0, 7))
    assert batch["id"].tolist() == pipeline.order_at(10, 0, np.arange(28, 32)).tolist()
    assert batch["id"].tolist() != pipeline.batch_at(source, 4, 1, 7)["id"].tolist()


def test_hosts_load_slices_of_one_global_batch():
    source = Numbers(30)
    for step in range(5):
        parts = [pipeline.batch_at(source, 8, 5, step, rows) for rows in np.split(np.arange(8), 4)]
        assert_same(pipeline.batch_at(source, 8, 5, step), concatenated(parts))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_iterator_yields_the_steps_in_order_and_ends(threads):
    source = Cached(Numbers(30))
    batches = list(pipeline.train_iterator(source, 8, 5, 3, 12, threads=threads))
    assert len(batches) == 9
    for step, batch in zip(range(3, 12), batches, strict=True):
        assert_same(batch, pipeline.batch_at(source, 8, 5, step))


def test_restarted_iterator_equals_the_uninterrupted_one():
    source = Cached(Numbers(30))
    whole = list(pipeline.train_iterator(source, 8, 5, 0, 10))
    rest = list(pipeline.train_iterator(source, 8, 5, 6, 10))
    for left, right in zip(whole[6:], rest, strict=True):
        assert_same(left, right)
    assert list(pipeline.train_iterator(source, 8, 5, 10, 10)) == []


def test_iterator_left_early_leaves_no_threads():
    before = set(threading.enumerate())
    iterator = pipeline.train_iterator(Numbers(30), 8, 5, 0, 10_000)
    next(iterator)
    readers = set(threading.enumerate()) - before
    iterator.close()
    for thread in readers:
        thread.join(timeout=20)
    assert readers and not any(thread.is_alive() for thread in readers)


@pytest.mark.parametrize("threads", [0, 2])
def test_unreadable_record_ends_the_iteration_with_its_id(threads):
    iterator = pipeline.train_iterator(Numbers(30, broken=[17]), 5, 0, 0, 100, threads=threads)
    with pytest.raises(UserError, match="record 17 .*bad block"):
        for _ in iterator:
            pass
    assert list(iterator) == []  # it does not go on past the record


@pytest.mark.parametrize("hosts", [1, 3, 4])
@pytest.mark.parametrize("size", [1, 23, 24, 25])
def test_evaluation_sees_every_record_once(hosts, size):
    per_host = [list(pipeline.eval_batches(Numbers(size), 12, np.arange(host, 12, hosts))) for host in range(hosts)]
    assert len({len(batches) for batches in per_host}) == 1
    batches = [batch for host in per_host for batch in host]
    assert {batch["inputs"]["a"].shape for batch in batches} == {(12 // hosts, 4)}
    whole = concatenated(batches)
    real = whole["weight"] > 0
    assert sorted(whole["id"][real].tolist()) == list(range(size))
    padding = {k: v for k, v in whole.items() if k not in ("id", "weight")}
    assert (whole["id"][~real] == -1).all()
    for group in ("present", "inputs", "length"):
        assert not any(array[~real].any() for array in padding[group].values())


def test_padding_leaves_the_cached_arrays_alone():
    cached = Cached(Numbers(5))
    list(pipeline.eval_batches(cached, 4))
    assert cached.take(range(5))["id"].tolist() == [0, 1, 2, 3, 4]


def test_what_cannot_be_batched_is_refused_at_once():
    for call in (pipeline.train_iterator, lambda s, b, *a, **k: pipeline.eval_batches(s, b, **k)):
        with pytest.raises(UserError, match="batch size of 0"):
            call(Numbers(10), 0, 0, 0, 5)
        with pytest.raises(UserError, match="empty"):
            call(Numbers(0), 8, 0, 0, 5)
