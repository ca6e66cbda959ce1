import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmr_jax import config as configs
from mmr_jax.objectives import Masd, ModalityDropout, Supervised
from mmr_jax.objectives.mixup import Mixup, mix_inputs, soft_labels

KINDS = {
    **toy.MODALITIES,
    "video": configs.video(frames=4, height=8, width=8, patch_size=(2, 4, 4)),
    "sensor": configs.features(length=6, dim=3),
}
PRESENT = {"audio": [1, 1, 0, 1, 1, 0], "video": [1, 0, 1, 1, 1, 1], "sensor": [0, 1, 1, 1, 1, 1]}
PARTNER = np.array([3, 2, 4, 0, 5, 1])
SHARE = np.array([0.25, 0.5, 1.0, 0.7, 0.9, 0.4], np.float32)


def published_labels(labels, classes, partner, share, eps):
    """As CAV-MAE's data loader fills them in, label by label."""
    rows = []
    for i, own in enumerate(labels):
        row = np.zeros(classes) + eps / classes
        if share[i] < 1:
            for label in own:
                row[label] += share[i] * (1 - eps)
            for label in labels[partner[i]]:
                row[label] += (1 - share[i]) * (1 - eps)
        else:
            for label in own:
                row[label] = 1 - eps
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_soft_labels_are_those_of_the_published_loader(eps):
    several = [[0, 2], [1], [], [2, 3, 4], [0], [4, 2]]
    hot = np.zeros((6, 5), np.float32)
    for row, own in zip(hot, several, strict=True):
        row[own] = 1
    found = soft_labels(jnp.asarray(hot), 5, PARTNER, SHARE, eps)
    np.testing.assert_allclose(found, published_labels(several, 5, PARTNER, SHARE, eps), atol=1e-6)
    single = np.array([0, 3, 2, 2, 4, 1])
    found = soft_labels(jnp.asarray(single), 5, PARTNER, SHARE, eps)
    np.testing.assert_allclose(found, published_labels(single[:, None], 5, PARTNER, SHARE, eps), atol=1e-6)


def test_shares_are_beta_at_the_asked_rate_and_partners_a_permutation():
    size, alpha = 20_000, 10.0
    draw = jax.jit(Mixup(0.3, alpha).draw)
    partner, share = map(np.asarray, draw(jax.random.key(0), jnp.ones(size), {"a": jnp.ones(size, bool)}))
    assert sorted(partner) == list(range(size))
    mixed = share < 1
    np.testing.assert_allclose(mixed.mean(), 0.3, atol=4 * np.sqrt(0.3 * 0.7 / size))
    np.testing.assert_allclose(share[mixed].mean(), 0.5, atol=0.01)
    np.testing.assert_allclose(share[mixed].var(), 1 / (4 * (2 * alpha + 1)), rtol=0.1)
    assert (partner != np.asarray(draw(jax.random.key(1), jnp.ones(size), {"a": jnp.ones(size, bool)})[0])).any()


def test_padding_and_examples_without_a_common_modality_are_no_partners():
    rng = np.random.default_rng(0)
    size = 500
    weight = (rng.random(size) < 0.7).astype(np.float32)
    present = {m: rng.random(size) < 0.5 for m in "ab"}
    partner, share = map(np.asarray, Mixup(1.0).draw(jax.random.key(0), jnp.asarray(weight), present))
    common = np.any([p & p[partner] for p in present.values()], axis=0)
    np.testing.assert_array_equal(share < 1, (weight[partner] > 0) & common)
    assert 0 < (share < 1).sum() < size


def test_raw_inputs_are_mixed_by_hand():
    """Noise past an example's length and of absent modalities has no part in it."""
    model, batch = toy.model(modalities=KINDS), toy.batch(6, present=PRESENT, modalities=KINDS)
    tokenizers = model.bind(toy.parameters(model)).encoder.tokenizers
    found = mix_inputs(tokenizers, batch["inputs"], batch["length"], PARTNER, SHARE, jax.random.key(0))
    np.testing.assert_array_equal(found["text"], batch["inputs"]["text"])
    assert found["text"].dtype == np.int32
    for m in ("audio", "image", "video", "sensor"):
        raw, length = batch["inputs"][m].astype(np.float64), batch["length"][m]
        raw = raw / 32768 if m == "audio" else raw
        ended = [a.copy() for a in raw]
        for a, n in zip(ended, length, strict=True):
            a[0 if n == 0 else len(a) if m == "image" else n :] = 0
        for i in range(6):
            share = SHARE[i] if length[PARTNER[i]] else 1.0
            expected = share * ended[i] + (1 - share) * ended[PARTNER[i]]
            np.testing.assert_allclose(found[m][i], expected, rtol=1e-5, atol=1e-5, err_msg=f"{m} {i}")


def test_each_side_of_a_mixed_image_draws_its_own_frame():
    modalities = {"image": configs.image(height=8, width=8, patch_size=(4, 4), frames=3)}
    model = toy.model(modalities=modalities)
    tokenizers, size = model.bind(model.init(jax.random.key(0))).encoder.tokenizers, 64
    frames = np.arange(size * 3).reshape(size, 3, 1, 1, 1) % 256 * np.ones((8, 8, 3))  # no two frames alike
    partner, share = np.roll(np.arange(size), 1), np.full(size, 0.75, np.float32)
    length = {"image": np.ones(size, np.int32)}
    found = mix_inputs(tokenizers, {"image": frames.astype(np.uint8)}, length, partner, share, jax.random.key(0))[
        "image"
    ]
    assert found.shape == (size, 8, 8, 3)
    pairs = []
    for i in range(size):
        fits = [
            (a, b)
            for a in range(3)
            for b in range(3)
            if np.allclose(found[i], 0.75 * frames[i, a] + 0.25 * frames[partner[i], b])
        ]
        assert len(fits) == 1
        pairs += fits
    assert len(set(pairs)) == 9


NAMES = ("image", "text")
PART = {m: toy.MODALITIES[m] for m in NAMES}


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_loss_equals_mixing_by_hand(multilabel, monkeypatch):
    model = toy.model(modalities=PART)
    params, batch = toy.parameters(model), toy.batch(6, modalities=PART, multilabel=multilabel)
    monkeypatch.setattr(Mixup, "draw", lambda *_: (jnp.asarray(PARTNER), jnp.asarray(SHARE)))
    objective = Supervised(model, NAMES, mixup=Mixup(0.5, smoothing=0.1))
    loss, (metrics, _) = objective.loss(params, {}, {"labelled": batch}, jax.random.key(0))

    module, images = model.bind(params), np.float32(batch["inputs"]["image"])
    share = SHARE.reshape(-1, 1, 1, 1)
    inputs = {"image": share * images + (1 - share) * images[PARTNER], "text": batch["inputs"]["text"]}
    logits = np.float64(module.classify(module.fuse(module.parts(inputs, batch["length"]), batch["present"])))
    own = [np.flatnonzero(row) for row in batch["label"]] if multilabel else batch["label"][:, None]
    target = published_labels(own, toy.CLASSES, PARTNER, SHARE, 0.1)
    if multilabel:
        losses = (np.logaddexp(0, logits) - target * logits).mean(-1)
    else:
        losses = -(target * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1)
    np.testing.assert_allclose(loss, losses.mean(), rtol=1e-5)
    top = logits.argmax(-1)
    hits = batch["label"][np.arange(6), top] if multilabel else top == batch["label"]
    np.testing.assert_allclose(metrics["accuracy"], hits.mean(), rtol=1e-6)


def test_smoothing_alone_leaves_the_inputs():
    model = toy.model(modalities=PART)
    params, batch = toy.parameters(model), toy.batch(6, modalities=PART)
    smooth = Supervised(model, NAMES, mixup=Mixup(smoothing=0.2))
    inputs, labels = smooth.soften(None, batch, batch["inputs"], batch["length"], jax.random.key(0))
    assert inputs is batch["inputs"]
    expected = np.where(np.arange(5) == batch["label"][:, None], 0.8, 0.2 / 5)
    np.testing.assert_allclose(labels, expected, rtol=1e-6)
    assert jnp.isfinite(smooth.loss(params, {}, {"labelled": batch}, jax.random.key(0))[0])


def test_without_mixup_and_smoothing_nothing_is_touched():
    model, batch = toy.model(modalities=PART), toy.batch(6, modalities=PART)
    for objective in (Supervised(model, NAMES), ModalityDropout(model, NAMES), Masd(model, ("text",))):
        inputs, labels = objective.soften(None, batch, batch["inputs"], batch["length"], None)
        assert inputs is batch["inputs"] and labels is batch["label"]


def test_mixup_of_masd_is_of_its_labelled_batch_alone():
    model = toy.model(modalities=PART)
    params, key = toy.parameters(model), jax.random.key(0)
    batches = {"labelled": toy.batch(6, 1, modalities=PART), "unlabelled": toy.batch(6, 2, modalities=PART)}
    found = [
        jax.jit(Masd(model, ("image",), mixup=mixup).loss)(params, {}, batches, key)[1][0]
        for mixup in (Mixup(), Mixup(1.0, smoothing=0.1))
    ]
    assert found[0]["distill_loss"] == found[1]["distill_loss"]
    assert abs(found[0]["task_loss"] - found[1]["task_loss"]) > 1e-3
