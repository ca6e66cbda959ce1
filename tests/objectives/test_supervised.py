import jax
import jax.numpy as jnp
import numpy as np
import toy

from mmr_jax.objectives import LinearProbe, ModalityDropout, Supervised, classification_loss
from mmr_jax.objectives.base import weighted_mean
from mmr_jax.objectives.supervised import accuracy


def test_softmax_loss_by_brute_force():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(8, 5)).astype(np.float32) * 4, rng.integers(0, 5, 8)
    expected = [-np.log(np.exp(row[y]) / np.exp(row).sum()) for row, y in zip(np.float64(logits), labels, strict=True)]
    np.testing.assert_allclose(classification_loss(logits, labels), expected, rtol=1e-5)
    weight = jnp.array([1.0, 0, 1, 1, 0, 1, 1, 1])
    hits = (logits.argmax(-1) == labels)[np.asarray(weight) > 0]
    np.testing.assert_allclose(accuracy(logits, labels, weight), hits.mean(), rtol=1e-6)


def test_multilabel_loss_by_brute_force():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 4)).astype(np.float32), (rng.random((6, 4)) < 0.5).astype(np.float32)
    p = 1 / (1 + np.exp(-np.float64(logits)))
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(-1)
    np.testing.assert_allclose(classification_loss(logits, labels), expected, rtol=1e-5)
    hits = labels[np.arange(6), logits.argmax(-1)].mean()
    np.testing.assert_allclose(accuracy(logits, labels, jnp.ones(6)), hits, rtol=1e-6)


def test_large_logits_stay_finite():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    assert classification_loss(logits, jnp.array([1, 1])).tolist() == [2e4, 0]
    assert classification_loss(logits, jnp.array([[1.0, 1.0], [0.0, 1.0]])).tolist() == [5e3, 0]


def test_weighted_mean_ignores_what_has_no_weight():
    values = jnp.array([1.0, jnp.nan, 3.0, jnp.inf])
    value, grads = jax.value_and_grad(weighted_mean)(values, jnp.array([1.0, 0, 3, 0]))
    assert value == 2.5 and grads.tolist() == [0.25, 0, 0.75, 0]
    value, grads = jax.value_and_grad(weighted_mean)(values, jnp.zeros(4))
    assert value == 0 and not np.asarray(grads).any()


def test_only_examples_with_some_modality_of_the_training_set_count():
    model = toy.model()
    params = toy.parameters(model)
    batch = toy.batch(size=6, present={"audio": [1, 1, 0, 0, 1, 1], "text": [1, 0, 1, 0, 1, 0]})
    batch["weight"][4] = 0
    loss = jax.jit(Supervised(model, ("audio", "text")).loss)
    value = loss(params, {}, {"labelled": batch}, jax.random.key(0))[0]
    rows = np.array([0, 1, 2, 5])
    kept = jax.tree.map(lambda a: a[rows], batch)
    np.testing.assert_allclose(value, loss(params, {}, {"labelled": kept}, jax.random.key(0))[0], rtol=1e-5)


def selections(rate, size=4000):
    present = np.random.default_rng(0).random((3, size)) < 0.7
    names = ("audio", "image", "text")
    objective = ModalityDropout(None, names, rate)
    select = objective.select(dict(zip(names, jnp.asarray(present), strict=True)), jax.random.key(1))
    return present, np.stack([select[m] for m in names])


def test_modality_dropout_never_hides_everything():
    for rate in (0.0, 0.5, 0.95, 1.0):
        present, kept = selections(rate)
        assert not (kept & ~present).any()
        np.testing.assert_array_equal(kept.any(0), present.any(0))
        if rate in (0.0, 1.0):  # at rate 1 every example would lose all, so it keeps all
            np.testing.assert_array_equal(kept, present)


def test_modality_dropout_hides_at_its_rate():
    rate = 0.4
    present, kept = selections(rate, 20_000)
    complete = present.all(0)
    # a modality of a complete example is hidden unless the draw would have hidden all three
    expected = rate - rate**3
    hidden = 1 - kept[:, complete].mean(1)
    np.testing.assert_allclose(hidden, expected, atol=4 * np.sqrt(expected / complete.sum()))


def probe_data(subsets=3, size=12, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "inputs": {"fused": rng.normal(size=(size, subsets, dim)).astype(np.float32)},
        "present": {"fused": rng.random((size, subsets)) < 0.8},
        "length": {},
        "label": rng.integers(0, 4, size).astype(np.int32),
        "weight": np.ones(size, np.float32),
    }


def test_probes_trained_together_equal_a_probe_trained_alone():
    batch, key = probe_data(), jax.random.key(0)

    def descend(objective, batch):
        step = jax.jit(objective.value_and_grad)
        params, _ = objective.init(key)
        for _ in range(5):
            _, grads = step(params, {}, {"labelled": batch}, key)
            params = jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)
        return params["head"]

    together = descend(LinearProbe(3, 5, 4), batch)
    for s in range(3):
        mine = {k: {"fused": batch[k]["fused"][:, s : s + 1]} for k in ("inputs", "present")}
        alone = descend(LinearProbe(1, 5, 4), {**batch, **mine})
        toy.assert_close(together["kernel"][s], alone["kernel"][0])
        toy.assert_close(together["bias"][s], alone["bias"][0])


def test_a_probe_equals_supervised_training_of_the_head():
    batch, key = probe_data(subsets=1), jax.random.key(0)
    head = {"kernel": np.random.default_rng(1).normal(size=(1, 5, 4)).astype(np.float32), "bias": np.ones((1, 4))}
    loss = LinearProbe(1, 5, 4).loss({"head": head}, {}, {"labelled": batch}, key)[0]
    there = batch["present"]["fused"][:, 0]
    logits = batch["inputs"]["fused"][there, 0] @ head["kernel"][0] + head["bias"][0]
    np.testing.assert_allclose(loss, classification_loss(logits, batch["label"][there]).mean(), rtol=1e-5)
