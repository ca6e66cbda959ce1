import pytest

from mmr_jax import tree

NESTED = {"b": {"y": 1, "x": {"k": 2}}, "a": 3}


def test_flatten_is_sorted_and_unflatten_is_its_inverse():
    flat = tree.flatten(NESTED)
    assert list(flat.items()) == [("a", 3), ("b/x/k", 2), ("b/y", 1)]
    assert tree.unflatten(flat) == NESTED


def test_empty_branches_have_no_leaves():
    assert tree.flatten({"a": {}, "b": {"c": {}}}) == {} and tree.unflatten({}) == {}


@pytest.mark.parametrize("keep", [lambda p: p.startswith("b"), lambda p: True, lambda p: False])
def test_partition_and_merge_are_inverses(keep):
    yes, no = tree.partition(NESTED, keep)
    assert all(keep(p) for p in tree.flatten(yes)) and not any(keep(p) for p in tree.flatten(no))
    assert tree.merge(yes, no) == NESTED == tree.merge(no, yes)
