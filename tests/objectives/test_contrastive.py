import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmr_jax.objectives import Contrastive, info_nce, pairwise_info_nce, pairwise_sigmoid


def one_direction(queries, candidates, temperature):
    """Mean over the queries of -log softmax at the diagonal, in float64, one query at a time."""
    losses = []
    for i, query in enumerate(queries):
        logits = np.array([query @ c / np.linalg.norm(query) / np.linalg.norm(c) for c in candidates]) / temperature
        losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[i])
    return np.mean(losses)


def brute_force(a, b, temperature, mask, symmetric=True):
    a, b = np.float64(a)[mask], np.float64(b)[mask]
    if len(a) < 2:
        return 0.0
    forth = one_direction(a, b, temperature)
    return (forth + one_direction(b, a, temperature)) / 2 if symmetric else forth


def embeddings(size=7, dim=6, names="ab", seed=0):
    rng = np.random.default_rng(seed)
    return {m: rng.normal(size=(size, dim)).astype(np.float32) for m in names}


def published(file):
    """{key of a loss: (names of its modalities in order, temperature, direction)} of info_nce.npz."""
    for key in file.files:
        parts = key.split("/")
        if parts[0] == "loss" and parts[1].startswith("tau"):
            yield key, float(parts[1][3:]), parts[2], parts[3] if len(parts) > 3 else None


def published_loss(inputs, temperature, pair, direction):
    if direction is None:
        loss, pairs = pairwise_info_nce(inputs, {m: jnp.ones(len(z), bool) for m, z in inputs.items()}, temperature)
        return loss * len(pairs) if pair.startswith("sum") else loss
    a, b = (pair if direction == "sym" else direction.replace("2", ""))[:2]
    return info_nce(inputs[a], inputs[b], temperature, symmetric=direction == "sym")


def test_losses_and_gradients_agree_with_the_published_ones(reference):
    file = np.load(reference / "info_nce.npz")
    inputs = {key[3:]: jnp.asarray(file[key]) for key in file.files if key.startswith("in/")}
    cases = list(published(file))
    assert len(cases) >= 10
    with jax.disable_jit():
        for key, temperature, pair, direction in cases:
            arguments = (temperature, pair, direction)
            loss, grads = jax.value_and_grad(published_loss)(inputs, *arguments)
            toy.assert_close(loss, file[key])
            stored = [m for m in inputs if f"grad/{key[5:]}/{m}" in file.files]
            assert stored, key
            for m in stored:
                toy.assert_close(grads[m], file[f"grad/{key[5:]}/{m}"])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kept", [7, 4, 2, 1, 0])
def test_masked_pairs_are_neither_query_nor_candidate(kept, symmetric):
    z = embeddings()
    mask = np.random.default_rng(kept).permutation(7) < kept
    loss, grads = jax.value_and_grad(lambda z: info_nce(z["a"], z["b"], 0.1, symmetric, jnp.asarray(mask)))(z)
    np.testing.assert_allclose(loss, brute_force(z["a"], z["b"], 0.1, mask, symmetric), rtol=2e-5)
    for gradient in grads.values():
        assert np.isfinite(gradient).all() and not np.asarray(gradient)[~mask].any()
        assert np.asarray(gradient)[mask].any() == (kept > 1)


@pytest.mark.parametrize("garbage", [1e30, np.inf, np.nan, 0.0])
def test_what_masked_rows_hold_does_not_matter(garbage):
    z, mask = embeddings(), jnp.array([True, False, True, True, False, True, True])
    spoilt = {m: np.where(np.asarray(mask)[:, None], v, np.float32(garbage)) for m, v in z.items()}
    value = jax.value_and_grad(lambda z: info_nce(z["a"], z["b"], 0.07, mask=mask))
    (clean_loss, clean), (loss, grads) = value(z), value(spoilt)
    assert loss == clean_loss
    toy.assert_same(grads, clean)


def test_scale_of_the_embeddings_does_not_matter():
    z = embeddings()
    np.testing.assert_allclose(info_nce(z["a"] * 50, z["b"] / 50, 0.07), info_nce(z["a"], z["b"], 0.07), rtol=1e-5)


def test_pairs_are_averaged_over_those_with_two_examples():
    z = embeddings(size=6, names="abcd", seed=1)
    present = {
        m: np.array(list(v), int).astype(bool)
        for m, v in {"a": "111100", "b": "011111", "c": "100011", "d": "000000"}.items()
    }
    loss, pairs = pairwise_info_nce(z, {m: jnp.asarray(p) for m, p in present.items()}, 0.2)
    expected, valid = {}, 0
    for a, b in itertools.combinations("abcd", 2):
        mask = present[a] & present[b]
        expected[f"{a}-{b}"], valid = brute_force(z[a], z[b], 0.2, mask), valid + (mask.sum() > 1)
    assert valid == 2 and pairs.keys() == expected.keys()  # a-b has 3, b-c has 2, a-c has 1
    for name, value in expected.items():
        np.testing.assert_allclose(pairs[name], value, rtol=2e-5)
    np.testing.assert_allclose(loss, sum(expected.values()) / valid, rtol=2e-5)


def test_nothing_present_gives_zero():
    z = embeddings()
    nothing = {m: jnp.zeros(7, bool) for m in z}
    loss, grads = jax.value_and_grad(lambda z: pairwise_info_nce(z, nothing, 0.07)[0])(z)
    assert loss == 0 and not any(np.asarray(g).any() for g in grads.values())


def test_the_sigmoid_loss_sums_all_pairs_and_divides_by_the_examples():
    z, there = embeddings(), np.array([1, 1, 0, 1, 0, 1, 1], bool)
    loss, pairs = pairwise_sigmoid(z, {"a": there, "b": np.ones(7, bool)}, 0.25, -1.5)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (np.float64(z[m])[there] for m in "ab"))
    logits = a @ b.T / 0.25 - 1.5
    signs = 2 * np.eye(5) - 1
    np.testing.assert_allclose(loss, np.log1p(np.exp(-signs * logits)).sum() / 5, rtol=1e-5)
    assert pairs.keys() == {"a-b"} and pairs["a-b"] == loss


def test_the_sigmoid_loss_counts_pairs_of_modalities_that_have_an_example():
    z = embeddings(names="abc")
    there = {m: np.arange(7) < n for m, n in {"a": 7, "b": 1, "c": 0}.items()}
    loss, pairs = pairwise_sigmoid(z, there, 0.25, -1.5)
    cosine = z["a"][0] @ z["b"][0] / np.linalg.norm(z["a"][0]) / np.linalg.norm(z["b"][0])
    np.testing.assert_allclose(loss, np.log1p(np.exp(1.5 - cosine / 0.25)), rtol=1e-5)
    assert pairs["a-c"] == pairs["b-c"] == 0


def test_learned_temperature_has_the_gradient_of_its_logarithm():
    model = toy.model()
    objective = Contrastive(model, ("audio", "image"), 0.1, learn_temperature=True)
    params = {**toy.parameters(model), "logit_scale": np.log(np.float32(10))}
    batches = {"unlabelled": toy.batch()}

    @jax.jit
    def loss(log_scale):
        return objective.loss({**params, "logit_scale": log_scale}, {}, batches, jax.random.key(0))[0]

    (value, _), grads = jax.jit(objective.value_and_grad)(params, {}, batches, jax.random.key(0))
    fixed = Contrastive(model, ("audio", "image"), 0.1)
    plain = {k: v for k, v in params.items() if k != "logit_scale"}
    np.testing.assert_allclose(value, jax.jit(fixed.loss)(plain, {}, batches, jax.random.key(0))[0], rtol=1e-5)
    centre, h = params["logit_scale"], 1e-2
    numeric = (loss(centre + h) - loss(centre - h)) / (2 * h)
    np.testing.assert_allclose(grads["logit_scale"], numeric, rtol=1e-2)
    assert loss(np.log(np.float32(1000))) == loss(np.log(np.float32(100)))  # the scale is clipped at 100
