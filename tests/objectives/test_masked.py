import functools

import jax
import numpy as np
import pytest
import toy

from mmr_jax import config as configs
from mmr_jax import methods, tree
from mmr_jax.checks import check
from mmr_jax.errors import UserError
from mmr_jax.objectives.masked import normalized, reconstruction_error
from mmr_jax.objectives.supervised import Supervised

# The models of the family: (changes to model, changes to pretrain).
FAMILY = {
    "audio_mae": ({"class_token": True}, {"modalities": ("audio",)}),
    "mae": ({"adapter_depth": 1, "stream_norms": "shared"}, {}),
    "av_mae": ({"adapter_depth": 1, "positions": "sincos", "modality_token": True}, {}),
    "vanilla": ({"adapter_depth": 0}, {"mask_together": True}),
    "separate": ({"pool": "cls", "class_token": True}, {}),
    "cav": ({"adapter_depth": 1}, {"reconstruction_weight": 0.0, "contrastive_weight": 1.0}),
    "cav_mae": ({"adapter_depth": 1, "positions": "sincos", "modality_token": True}, {"contrastive_weight": 0.01}),
    "time": ({"adapter_depth": 1}, {"masking.audio.mode": "time", "norm_targets": False}),
}


@functools.cache
def made(name):
    """(objective, generic parameters) of a member of the family."""
    model_changes, changes = FAMILY[name]
    config = toy.get_config()
    for key, value in {"objective": "masked", "masking.text.ratio": 0.5, **changes}.items():
        configs.set_field(config.pretrain, key, value)
    for key, value in model_changes.items():
        configs.set_field(config.model, key, value)
    check(config)
    names = config.pretrain.modalities if "modalities" in changes else tuple(toy.MODALITIES)
    objective = methods.pretraining(config, toy.model(model_changes), names)
    params, _ = objective.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    return objective, jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)


@functools.cache
def gradients(name):
    """((loss, (metrics, extra)), gradients of every leaf) as a compiled function of (params, batch, key)."""
    objective, _ = made(name)
    loss = lambda params, batch, key: objective.loss(params, {}, {"unlabelled": batch}, key)  # noqa: E731
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def norms(grads):
    return {path: float(np.abs(g).max()) for path, g in tree.flatten(grads).items()}


@pytest.mark.parametrize("name", toy.slow_but(("mae", "cav", "cav_mae"), FAMILY))
def test_what_trains_is_what_the_loss_depends_on(name):
    objective, params = made(name)
    _, grads = gradients(name)(params, toy.batch(), jax.random.key(1))
    fixed = {p for p in tree.flatten(params) if p.startswith("decoder/") and p.endswith("/position")}
    fixed |= {p for p in tree.flatten(params) if p.endswith("/position") and objective.model.sincos}
    found = {path for path, size in norms(grads).items() if size > 1e-9}
    assert {p for p in tree.flatten(params) if objective.trains(p)} == found - fixed


@pytest.mark.parametrize("name", ["mae", "vanilla", "cav_mae", "separate"])
def test_what_is_absent_or_past_the_end_changes_nothing(name):
    """Neither the loss nor a gradient depends on the input of an absent modality, on padding, or on padded examples."""
    _, params = made(name)
    batch = toy.batch(present={"audio": [1, 0, 1, 1, 0, 1], "text": [1, 1, 0, 1, 0, 1], "image": [1, 1, 1, 1, 0, 0]})
    batch["weight"] = np.array([1, 1, 1, 0, 1, 1], np.float32)
    other = jax.tree.map(np.copy, batch)
    for m, there in batch["present"].items():
        other["inputs"][m][~there] = 7
        for row, length in enumerate(batch["length"][m]):
            if m != "image":
                other["inputs"][m][row, length:] = 3
    for m in other["inputs"]:  # an example of weight 0 may be anything as far as the reconstruction goes
        if name != "cav_mae":
            other["inputs"][m][3] = 1
    first, second = (gradients(name)(params, b, jax.random.key(2)) for b in (batch, other))
    np.testing.assert_allclose(first[0][0], second[0][0], rtol=1e-6)
    assert np.isfinite(first[0][0]) and first[0][0] > 0
    for path, g in tree.flatten(first[1]).items():
        toy.assert_close(tree.flatten(second[1])[path], g, 1e-5)


@pytest.mark.parametrize("name", ["mae", "vanilla"])
def test_hidden_patches_do_not_reach_the_prediction(name):
    """The prediction of a patch may depend on visible patches only; visible ones do reach it."""
    objective, params = made(name)
    batch = toy.batch()
    batch["length"] = {
        m: np.full_like(v, {"audio": 1600, "image": 1, "text": 8}[m]) for m, v in batch["length"].items()
    }
    patches, length, seen, noise = objective.prepare(params, batch, jax.random.key(5))
    forward = jax.jit(objective.forward)
    _, _, first = forward(params, patches, length, seen, noise)
    hidden = {m: ~np.asarray(first.places[m].visible) for m in patches}
    assert all(h.any() and not h.all() for h in hidden.values())
    for change, same in ((hidden, True), ({m: ~h for m, h in hidden.items()}, False)):
        moved = {
            m: np.where(change[m][..., None] if p.ndim == 3 else change[m], 5, np.asarray(p)).astype(p.dtype)
            for m, p in patches.items()
        }
        _, _, second = forward(params, moved, length, seen, noise)
        for m, predicted in first.predicted.items():
            assert np.allclose(second.predicted[m], predicted, atol=1e-5) == same, m


def test_loss_is_the_mean_over_hidden_patches_of_the_batch():
    objective, params = made("time")
    batch = toy.batch(present={"audio": [1, 1, 0, 1, 1, 1]})
    patches, length, seen, noise = objective.prepare(params, batch, jax.random.key(5))
    loss, metrics, out = jax.jit(objective.forward)(params, patches, length, seen, noise)
    total = 0.0
    for m, predicted in out.predicted.items():
        errors = []
        for row in range(6):
            for t in range(predicted.shape[1]):
                if out.places[m].exists[row, t] and not out.places[m].visible[row, t]:
                    p, target = np.asarray(predicted[row, t], np.float64), np.asarray(patches[m][row, t])
                    ids = target.ndim == 0
                    errors.append(np.log(np.exp(p).sum()) - p[target] if ids else np.mean((p - target) ** 2))
        np.testing.assert_allclose(metrics[f"reconstruction_{m}"], np.mean(errors), rtol=1e-4)
        total += np.mean(errors)
    np.testing.assert_allclose(loss, total, rtol=1e-4)


def test_normalized_targets_and_errors():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (2, 5, 12)).astype(np.float32)
    found, mean, deviation = normalized(x)
    np.testing.assert_allclose(found, (x - x.mean(-1, keepdims=True)) / x.std(-1, ddof=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(found * deviation + mean, x, atol=1e-5)
    ids, logits = rng.integers(0, 12, (2, 5)), x.astype(np.float64)
    expected = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, ids[..., None], -1)[..., 0]
    np.testing.assert_allclose(reconstruction_error(x, ids), expected, rtol=1e-5)


def test_masked_training_learns_and_downstream_runs_on_it():
    """A few steps lower the loss; the same parameters (without the decoder) classify."""
    objective, params = made("cav_mae")
    batch, step = toy.batch(), gradients("cav_mae")
    first = None
    for i in range(60):
        (loss, _), grads = step(params, batch, jax.random.key(i % 3))
        first = first or float(loss)
        params = jax.tree.map(lambda p, g: p - 0.02 * g, params, grads)
    assert loss < 0.9 * first
    model = {k: v for k, v in params.items() if k != "decoder"}
    loss, _ = Supervised(objective.model, ("audio", "text")).loss(model, {}, {"labelled": batch}, jax.random.key(0))
    assert np.isfinite(loss)


@pytest.mark.parametrize("changes, told", [
    ({"pretrain.reconstruction_weight": 0.0}, "both 0"),
    ({"pretrain.mask_together": True}, "adapter_depth=0"),
    ({"pretrain.masking.image.mode": "time"}, "pretrain.masking.image.mode"),
    ({"pretrain.masking.audio.mode": "tiem"}, "did you mean 'time'"),
    ({"pretrain.masking.audio.ratio": 1.0}, "below 1"),
    ({"pretrain.decoder.heads": 5}, "not divisible by heads 5"),
    ({"pretrain.objective": "maskd"}, "did you mean 'masked'"),
    ({"pretrain.contrastive_weight": 1.0, "pretrain.modalities": ("audio",)}, "the contrastive loss needs two"),
], ids=lambda x: x if isinstance(x, str) else "")  # fmt: skip
def test_settings_that_cannot_work_are_refused(changes, told):
    config = toy.get_config()
    for key, value in {"pretrain.objective": "masked", **changes}.items():
        configs.set_field(config, key, value)
    with pytest.raises(UserError, match=told):
        check(config)
