import jax
import numpy as np
import pytest
import toy

from mmr_jax import tree
from mmr_jax.objectives import Contrastive, LinearProbe, Masd, ModalityDropout, Supervised
from mmr_jax.objectives.base import Frozen
from mmr_jax.objectives.mixup import Mixup
from mmr_jax.train import sharding
from mmr_jax.train.step import make_program

MISSING = {"audio": [1, 0, 1, 0, 1, 0, 1, 1], "image": [1, 1, 0, 0, 0, 1, 1, 1], "text": [1, 1, 0, 1, 0, 0, 1, 1]}


def advance(objective, params, batches, steps=1, mesh=None, ema=0.0, average=(0, 0), **optim):
    """(states, metrics) after each step; every step sees the same batches."""
    mesh = mesh or toy.mesh()
    cfg = toy.recipe(**{f"optim__{k}": v for k, v in optim.items()}).optim
    program = make_program(objective, cfg, 10, ema, mesh, average)
    state = program.start(params, {})
    batches = {name: sharding.put_batch(batch, mesh) for name, batch in batches.items()}
    states, metrics = [jax.device_get(state)], []
    for _ in range(steps):
        state, found = program.step(state, batches, jax.random.key(0))
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(found))
    return states, metrics


CASES = {
    "supervised": ({}, lambda m: Supervised(m, ("audio",))),
    "masd": ({}, lambda m: Masd(m, ("audio",))),
    "joint": (toy.JOINT, lambda m: Supervised(m, ("image", "text"))),
    "contrastive": ({"adapter_depth": 1}, lambda m: Contrastive(m, ("image", "text"))),
    "mixup": ({}, lambda m: Supervised(m, ("audio",), mixup=Mixup(1.0, smoothing=0.1))),
    "frozen": ({"adapter_depth": 1}, lambda m: Frozen(Supervised(m, ("audio",)), ("/tokenizers/", "^encoder/shared"))),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_train_stays_and_what_trains_moves(case):
    changes, make = CASES[case]
    model = toy.model(changes)
    objective, params, batch = make(model), toy.parameters(model), toy.batch(8)
    states, _ = advance(objective, params, {"labelled": batch, "unlabelled": batch}, steps=2)
    before, after = tree.flatten(params), tree.flatten(states[-1].params)
    moved = {path for path in before if (before[path] != after[path]).any()}
    assert moved == {path for path in before if objective.trains(path)}
    assert 0 < len(moved) < len(before) or case == "masd"
    moments = tree.flatten(next(s for s in jax.tree.leaves(states[-1].opt_state, is_leaf=is_adam) if is_adam(s)).mu)
    assert set(moments) == moved


def is_adam(node):
    return hasattr(node, "mu")


def test_what_frozen_means():
    objective = CASES["frozen"][1](toy.model({"adapter_depth": 1}))
    trained = {p for p in toy.shapes(objective.base.model) if objective.trains(p)}
    assert trained and not any("tokenizers" in p or "encoder/shared" in p or "/text/" in p for p in trained)
    assert objective.sources == ("labelled",)


def test_all_of_a_linear_probe_trains():
    rng = np.random.default_rng(0)
    batch = {**toy.batch(8), "inputs": {"fused": rng.normal(size=(8, 3, 6)).astype(np.float32)}, "length": {}}
    batch["present"] = {"fused": np.ones((8, 3), bool)}
    objective = LinearProbe(3, 6, toy.CLASSES)
    states, _ = advance(objective, objective.init(None)[0], {"labelled": batch})
    assert all(leaf.any() for leaf in jax.tree.leaves(states[-1].params))


@pytest.mark.parametrize("changes", [{"adapter_depth": 1}, toy.JOINT], ids=str)
def test_what_an_absent_modality_holds_changes_nothing_in_a_step(changes):
    """Neither the result of a whole step with every example lacking text, nor of one with mixed presence."""
    model = toy.model(changes)
    objective, params = Supervised(model, model.names), toy.parameters(model)
    for present in ({"text": np.zeros(8, bool)}, MISSING):
        states = []
        for seed in (1, 2):
            batch, noise = toy.batch(8, present=present), toy.batch(8, seed=seed)
            for m, there in batch["present"].items():
                batch["inputs"][m][~there] = noise["inputs"][m][~there]
            states.append(advance(objective, params, {"labelled": batch})[0][-1])
        toy.assert_same(states[0].params, states[1].params)
        for a, b in zip(*(jax.tree.leaves(s.opt_state) for s in states), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(bad):
    model = toy.model(modalities={"text": toy.MODALITIES["text"]})
    objective, params = Supervised(model, ("text",)), toy.parameters(model)
    good = toy.batch(8, modalities={"text": toy.MODALITIES["text"]})
    spoilt = {**good, "weight": np.where(np.arange(8) == 3, bad, 1).astype(np.float32)}
    program = make_program(objective, toy.recipe().optim, 10, 0.9, toy.mesh())
    state, key = program.start(params, {}), jax.random.key(0)
    state, metrics = program.step(state, {"labelled": good}, key)
    before = jax.device_get(state)
    assert metrics["finite"]
    state, metrics = program.step(state, {"labelled": spoilt}, key)
    assert not metrics["finite"] and state.step == before.step + 1 == 2
    for a, b in zip(jax.tree.leaves(state._replace(step=0)), jax.tree.leaves(before._replace(step=0)), strict=True):
        np.testing.assert_array_equal(a, b)
    state, metrics = program.step(state, {"labelled": good}, key)
    assert metrics["finite"] and (jax.tree.leaves(state.params)[0] != jax.tree.leaves(before.params)[0]).any()


def test_ema_follows_its_recursion():
    modalities = {"text": toy.MODALITIES["text"], "image": toy.MODALITIES["image"]}
    model = toy.model(modalities=modalities)
    params = toy.parameters(model)
    states, _ = advance(
        Supervised(model, ("text",)), params, {"labelled": toy.batch(8, modalities=modalities)}, 3, ema=0.7, lr=0.05
    )
    expected = tree.flatten(params)
    for state in states[1:]:
        expected = {p: 0.7 * expected[p] + 0.3 * leaf for p, leaf in tree.flatten(state.params).items()}
    found = tree.flatten(states[-1].extra["ema"])
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-5, atol=1e-7)
    assert np.abs(found["head/kernel"] - tree.flatten(states[-1].params)["head/kernel"]).max() > 1e-3


@pytest.mark.parametrize("every, start", [(1, 0), (2, 0), (2, 3), (3, 4), (5, 9)])
def test_the_average_is_the_mean_of_the_weights_after_the_steps_that_count(every, start):
    modalities = {"text": toy.MODALITIES["text"], "image": toy.MODALITIES["image"]}
    model = toy.model(modalities=modalities)
    batch = toy.batch(8, modalities=modalities)
    states, _ = advance(
        Supervised(model, ("text",)), toy.parameters(model), {"labelled": batch}, 8, average=(every, start), lr=0.05
    )
    flat = [tree.flatten(state.params) for state in states]
    for now in range(1, 9):
        counted = [s for s in range(1, now + 1) if s >= start and s % every == 0] or [now]
        for path, leaf in tree.flatten(states[now].extra["average"]).items():
            expected = np.mean([np.float64(flat[s][path]) for s in counted], axis=0)
            np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-6, err_msg=f"{path} after {now}")
    assert "ema" not in states[-1].extra


def test_a_step_that_is_not_finite_counts_with_the_weights_it_left():
    modalities = {"text": toy.MODALITIES["text"]}
    model = toy.model(modalities=modalities)
    good = toy.batch(8, modalities=modalities)
    program = make_program(Supervised(model, ("text",)), toy.recipe().optim, 10, 0.0, toy.mesh(), (1, 1))
    state, heads = program.start(toy.parameters(model), {}), []
    for weight in (1.0, np.nan, 1.0):
        batch = {**good, "weight": np.full(8, weight, np.float32)}
        state, _ = program.step(state, {"labelled": batch}, jax.random.key(0))
        heads.append(np.asarray(state.params["head"]["kernel"]))
    np.testing.assert_array_equal(heads[0], heads[1])
    np.testing.assert_allclose(state.extra["average"]["head"]["kernel"], np.mean(heads, axis=0), rtol=1e-6)


def test_randomness_depends_on_the_step():
    model = toy.model({}, {m: toy.MODALITIES[m] for m in ("image", "text")})
    batch = toy.batch(8, modalities={m: toy.MODALITIES[m] for m in ("image", "text")})
    objective = ModalityDropout(model, model.names)
    _, metrics = advance(objective, toy.parameters(model), {"labelled": batch}, 4, lr=0.0, weight_decay=0.0)
    losses = [float(m["loss"]) for m in metrics]
    assert len(set(losses)) > 1  # other modalities are hidden in every step
    again = advance(objective, toy.parameters(model), {"labelled": batch}, 4, lr=0.0, weight_decay=0.0)[1]
    assert losses == [float(m["loss"]) for m in again]


@pytest.mark.slow
def test_one_device_equals_eight_when_examples_are_mixed():
    """The same five losses on one device and with all three mesh axes; test_hosts has the other objectives."""
    modalities = {m: toy.MODALITIES[m] for m in ("image", "text")}
    model = toy.model({"adapter_depth": 1}, modalities)
    params = toy.parameters(model)
    batches = {"labelled": toy.batch(8, 0, MISSING, modalities)}
    objective = Supervised(model, ("image", "text"), mixup=Mixup(0.7, 1.0, 0.1))
    losses, last = [], []
    with jax.default_matmul_precision("highest"):
        for mesh in (toy.mesh(), toy.mesh(2, 2, 2)):
            states, metrics = advance(objective, params, batches, 5, mesh, name="sgd", lr=0.01, weight_decay=0.0)
            losses.append([float(m["loss"]) for m in metrics])
            last.append(states[-1].params)
    assert losses[0][0] != losses[0][-1]
    for other, params in zip(losses[1:], last[1:], strict=True):
        np.testing.assert_allclose(other, losses[0], rtol=1e-5)
        for path, leaf in tree.flatten(params).items():
            np.testing.assert_allclose(leaf, tree.flatten(last[0])[path], atol=1e-5, err_msg=path)


def test_equal_stages_share_one_program():
    model, cfg, mesh = toy.model(), toy.recipe().optim, toy.mesh()
    programs = [make_program(Supervised(model, ("audio",)), cfg, 10, 0.0, mesh) for _ in range(2)]
    assert programs[0] is programs[1]
    assert make_program(Supervised(model, ("text",)), cfg, 10, 0.0, mesh) is not programs[0]
