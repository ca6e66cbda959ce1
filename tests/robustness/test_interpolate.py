import jax.numpy as jnp
import numpy as np
import pytest

from mmr_jax import tree
from mmr_jax.robustness import wise_ft


def ends(seed=0):
    rng = np.random.default_rng(seed)
    return [{"a": {"kernel": rng.normal(size=(3, 2)).astype(np.float32)}, "b": np.float32(rng.normal())} for _ in "12"]


def test_agrees_with_the_published_numbers(reference):
    file = np.load(reference / "wiseft.npz")
    trees = {}
    for key in file.files:
        name, _, path = key.partition("/")
        trees.setdefault(name, {})[path] = file[key]
    trees = {name: tree.unflatten(flat) for name, flat in trees.items()}
    alphas = [name for name in trees if name.startswith("alpha")]
    assert len(alphas) >= 3
    for name in alphas:
        found = tree.flatten(wise_ft(trees["theta1"], trees["theta0"], float(name[5:])))
        for path, expected in tree.flatten(trees[name]).items():
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found[path], expected, rtol=0, atol=1e-5 * scale)
            assert np.asarray(found[path]).dtype == expected.dtype


def test_the_ends_are_bit_for_bit():
    fine, anchor = ends()
    fine["a"]["kernel"][0, 0] = np.inf  # inf * 0 would be nan
    assert wise_ft(fine, anchor, 1) is fine and wise_ft(fine, anchor, 0.0) is anchor


def test_any_pytree_and_dtype():
    mixed = wise_ft((jnp.ones(2, jnp.bfloat16), [np.int32(3)]), (jnp.zeros(2, jnp.bfloat16), [np.int32(3)]), 0.25)
    assert mixed[0].dtype == jnp.bfloat16 and mixed[0].tolist() == [0.25, 0.25] and mixed[1] == [3]
    assert wise_ft(2.0, 1.0, 0.5) == 1.5


def change(where, value):
    fine, anchor = ends()
    if where == "missing":
        del anchor["a"]["kernel"]
    elif where == "extra":
        anchor["c"] = np.float32(0)
    else:
        anchor["a"]["kernel"] = value
    return fine, anchor


@pytest.mark.parametrize("where, value, message", [
    ("missing", None, "'kernel'.*only in finetuned"),
    ("extra", None, "'c'.*only in anchor"),
    ("kernel", np.zeros((2, 3), np.float32), r"'kernel'.*shape \(3, 2\) in finetuned and \(2, 3\)"),
    ("kernel", np.zeros((3, 2), np.float16), "'kernel'.*dtype float32 in finetuned and float16"),
])  # fmt: skip
@pytest.mark.parametrize("alpha", [0, 0.5, 1])
def test_unequal_trees_are_refused_with_the_path(where, value, message, alpha):
    with pytest.raises(ValueError, match=message):
        wise_ft(*change(where, value), alpha)


def test_integers_must_be_equal():
    with pytest.raises(ValueError, match="not floating point and differs"):
        wise_ft({"n": np.int32(1)}, {"n": np.int32(2)}, 0.5)
