import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmr_jax import config as configs
from mmr_jax import tree
from mmr_jax.errors import UserError
from mmr_jax.models.model import owner
from mmr_jax.objectives import Contrastive, Masd, Supervised

D, F, P, C, DEPTH = 16, 32, 12, toy.CLASSES, 2
PATCH = {"audio": 4 * 8, "image": 4 * 4 * 3}  # inputs of the linear embedding
TOKENS = {"audio": 2 * 2, "image": 2 * 2, "text": 8}
BLOCK = D * 3 * D + 3 * D + D * D + D + D * F + F + F * D + D  # without its norms
NORM = 2 * D
MISSING = {"audio": [1, 0, 1, 0, 1, 0], "image": [1, 1, 0, 0, 0, 1], "text": [1, 1, 0, 1, 0, 0]}


@functools.cache
def compiled(model):
    def compute(params, inputs, length, present):
        module = model.bind(params)
        return module.classify(module.fuse(module.parts(inputs, length), present))

    return jax.jit(compute)


def logits(model, params, batch, names=None):
    """Logits from the modalities in `names` alone: the others are not even given."""
    names = list(names or model.names)
    length = {m: np.where(batch["present"][m], batch["length"][m], 0) for m in names}
    parts = [{m: part[m] for m in names} for part in (batch["inputs"], length, batch["present"])]
    return np.asarray(compiled(model)(params, *parts))


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("fusion", ["mean", "joint"])
@pytest.mark.parametrize("adapter_depth", [0, 1, 2])
def test_parameter_counts_follow_the_formula(adapter_depth, fusion, class_token):
    if fusion == "joint" and adapter_depth == DEPTH:
        return
    changes = {"adapter_depth": adapter_depth, "fusion": fusion, "class_token": class_token}
    shapes = toy.shapes(toy.model(changes))
    embed = {m: n * D + D for m, n in PATCH.items()} | {"text": 259 * D}
    owned, shared = adapter_depth, DEPTH - adapter_depth
    streams = 4  # the joint one has norms of its own wherever blocks are shared
    expected = sum(embed[m] + (TOKENS[m] + 2 * class_token) * D for m in TOKENS)  # its position and the token
    expected += 3 * owned * (BLOCK + 2 * NORM) + shared * (BLOCK + streams * 2 * NORM)
    expected += (streams if shared else 3) * NORM + 3 * D * P
    expected += (D if fusion == "joint" else P) * C + C
    assert sum(math.prod(s.shape) for s in shapes.values()) == expected
    assert any(p.startswith("encoder/shared/") for p in shapes) == (shared > 0)
    assert any(p.startswith("encoder/owned/") for p in shapes) == (owned > 0)
    for path, leaf in shapes.items():
        if path.startswith("encoder/owned/"):
            assert owner(path) in TOKENS and leaf.shape[0] == owned
        if path.startswith("encoder/shared/"):
            assert (owner(path) is None) == ("/norms/" not in path) and leaf.shape[0] == shared


def test_shared_stream_norms_are_one_pair_for_all():
    own, one = (toy.shapes(toy.model({**toy.JOINT, "stream_norms": kind})) for kind in ("own", "shared"))
    norms = {owner(p) for p in one if "/norms/" in p and p.startswith(("encoder/shared", "encoder/norms"))}
    assert norms == {"all"}
    assert sum(math.prod(s.shape) for s in own.values()) - sum(math.prod(s.shape) for s in one.values()) == 3 * 3 * NORM


@pytest.mark.parametrize("changes", [
    {"adapter_depth": 1, "stream_norms": "shared"}, {"embedding": "backbone", "normalize": "none"},
    {"class_token": True, "pool": "cls", "adapter_depth": 0}, {**toy.JOINT, "class_token": True},
], ids=str)  # fmt: skip
def test_a_subset_mask_equals_leaving_the_modality_out(changes):
    model = toy.model(changes)
    params, full = toy.parameters(model), toy.batch()
    for names in (["text"], ["audio", "text"]):
        hidden = toy.batch(present={m: np.full(6, m in names) for m in model.names})
        alone = logits(model, params, full, names)
        np.testing.assert_allclose(logits(model, params, hidden), alone, rtol=1e-5, atol=1e-5)
        assert np.abs(alone - logits(model, params, full)).max() > 1e-2


@pytest.mark.parametrize("changes", [{}, toy.JOINT, {"class_token": True, "pool": "cls", "adapter_depth": 0}], ids=str)
def test_what_an_absent_modality_or_padding_holds_changes_no_logit(changes):
    model = toy.model(changes)
    params, batch = toy.parameters(model), toy.batch(present=MISSING)
    spoilt = spoil(batch)
    assert all((spoilt["inputs"][m] != batch["inputs"][m]).any() for m in model.names)
    np.testing.assert_array_equal(logits(model, params, spoilt), logits(model, params, batch))


def spoil(batch, seed=9):
    """Other noise in absent modalities and past the length of present ones."""
    other = toy.batch(seed=seed)
    inputs = {}
    for m, raw in batch["inputs"].items():
        length = np.where(batch["present"][m], batch["length"][m], 0)
        if m == "image":
            length = length * raw.shape[1]
        valid = np.arange(raw.shape[1]) < length[:, None]
        inputs[m] = np.where(valid.reshape(*valid.shape, *[1] * (raw.ndim - 2)), raw, other["inputs"][m])
    return {**batch, "inputs": inputs}


def test_float_features_may_hold_nan_where_nothing_is():
    modalities = {"sensor": configs.features(length=4, dim=3), "text": toy.MODALITIES["text"]}
    model = toy.model(toy.JOINT, modalities)
    params, batch = toy.parameters(model), toy.batch(modalities=modalities, present={"sensor": [1, 0] * 3})
    batch["length"]["sensor"] = np.array([3, 4] * 3, np.int32)
    spoilt = {**batch, "inputs": {**batch["inputs"], "sensor": batch["inputs"]["sensor"].copy()}}
    spoilt["inputs"]["sensor"][1::2] = np.nan
    spoilt["inputs"]["sensor"][0::2, 3:] = np.nan
    step = jax.jit(Supervised(model, model.names).value_and_grad)
    results = [step(params, {}, {"labelled": b}, jax.random.key(0)) for b in (batch, spoilt)]
    toy.assert_same(results[1][1], results[0][1])


@pytest.mark.parametrize("kind", ["spectrogram", "video", "text"])
def test_tokens_past_the_length_are_masked(kind):
    modalities = {"m": {"spectrogram": toy.MODALITIES["audio"], "text": toy.MODALITIES["text"],
                        "video": configs.video(frames=4, height=8, width=8, patch_size=(2, 4, 4))}[kind]}  # fmt: skip
    model = toy.model({"class_token": True}, modalities)
    batch = toy.batch(size=4, modalities=modalities)
    lengths, seen = {
        "spectrogram": ([0, 1, 640, 641], [0, 2, 2, 4]),  # 4 frames of 160 samples make a column of 2 patches
        "video": ([0, 1, 2, 3], [0, 4, 4, 8]),
        "text": ([0, 1, 7, 8], [0, 1, 7, 8]),
    }[kind]
    module = model.bind(toy.parameters(model))
    tokens, mask = module.encoder.tokens(batch["inputs"], {"m": jnp.array(lengths)})["m"]
    assert mask.shape == tokens.shape[:2]
    np.testing.assert_array_equal(mask[:, 0], np.array(lengths) > 0)  # the class token
    np.testing.assert_array_equal(mask[:, 1:].sum(1), seen)
    np.testing.assert_array_equal(mask[:, 1:], np.arange(mask.shape[1] - 1) < np.array(seen)[:, None])


def test_towers_of_unequal_width_are_averaged_after_projection():
    overrides = {
        "audio": {"width": 24, "heads": 3, "depth": 1, "mlp_dim": 8},
        "text": {"causal": True, "activation": "quick_gelu"},
    }
    model = toy.model(overrides=overrides)
    shapes = toy.shapes(model)
    assert shapes["encoder/owned/audio/layers/mlp/up/kernel"].shape == (1, 24, 8)
    assert shapes["encoder/owned/image/layers/mlp/up/kernel"].shape == (2, 16, 32)
    assert shapes["encoder/norms/audio/scale"].shape == (24,) and shapes["projections/audio/out/kernel"].shape == (
        24,
        P,
    )
    params, batch = toy.parameters(model), toy.batch()
    assert model.dim == P and np.isfinite(logits(model, params, batch)).all()
    each = [logits(model, params, batch, [m]) for m in model.names]
    np.testing.assert_allclose(logits(model, params, batch), np.mean(each, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes, overrides, message", [
    ({"adapter_depth": 1}, {"audio": {"width": 24}}, "needs separate encoders"),
    ({"embedding": "backbone"}, {"audio": {"width": 24, "heads": 3}}, "unequal width"),
    ({}, {"audoi": {"width": 24}}, "did you mean 'audio'"),
    ({}, {"audio": {"widht": 24}}, "has no field 'widht'; did you mean 'width'"),
    ({}, {"audio": {"fusion": "joint"}}, "has no field 'fusion'"),
    ({"fusion": "joint"}, {}, "needs shared blocks"),
    ({"adapter_depth": 3}, {}, "larger than the depth 2"),
    ({"heads": 3}, {}, "not divisible by heads"),
    ({"size": "T"}, {}, "did you mean 'Ti'"),
    ({"pool": "cls"}, {}, "class_token=True"),
    ({"activation": "gleu"}, {}, "did you mean 'gelu'"),
    ({"dtype": "bfloat61"}, {}, "did you mean 'bfloat16'"),
    ({"projection.kind": "linaer"}, {}, "projection.kind"),
])  # fmt: skip
def test_what_cannot_be_built_is_refused(changes, overrides, message):
    with pytest.raises(UserError, match=message):
        toy.model(changes, overrides=overrides)


@pytest.mark.parametrize("name", ["joint", "all"])
def test_reserved_modality_names_are_refused(name):
    with pytest.raises(UserError, match="reserved"):
        toy.model(modalities={name: toy.MODALITIES["text"]})


def test_patches_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="'image'.*not divisible by patch_size"):
        toy.model(modalities={"image": configs.image(height=9, width=8, patch_size=(4, 4))})
    with pytest.raises(UserError, match="unknown kind 'vidoe'; did you mean 'video'"):
        toy.model(modalities={"image": {**configs.video(), "kind": "vidoe"}})


def test_sizes_by_name():
    shapes = toy.shapes(toy.model({"size": "Ti"}, {"text": toy.MODALITIES["text"]}))
    assert shapes["encoder/owned/text/layers/attention/qkv/kernel"].shape == (12, 192, 576)


def test_bfloat16_compute_keeps_float32_parameters_and_losses():
    modalities = {"text": toy.MODALITIES["text"]}
    models = [toy.model({"dtype": dtype}, modalities) for dtype in ("float32", "bfloat16")]
    assert {s.dtype for s in toy.shapes(models[1]).values()} == {jnp.dtype("float32")}
    assert {np.asarray(p).dtype for p in tree.flatten(models[1].init(jax.random.key(0))).values()} == {
        np.dtype("float32")
    }
    params, batch = toy.parameters(models[0]), toy.batch(modalities=modalities)
    results = [
        jax.jit(Supervised(m, m.names).value_and_grad)(params, {}, {"labelled": batch}, jax.random.key(0))
        for m in models
    ]
    (loss, _), grads = results[1]
    assert loss.dtype == jnp.float32 and {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(loss, results[0][0][0], rtol=0.05)
    assert loss != results[0][0][0]


def test_the_mlp_projection_equals_numpy():
    model = toy.model({"projection.kind": "mlp"}, {"text": toy.MODALITIES["text"]})
    p = toy.parameters(model)["projections"]["text"]
    x = np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)

    def norm(x, p):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    hidden = np.maximum(norm(x @ p["hidden"]["kernel"], p["hidden_norm"]), 0)
    expected = norm(hidden @ p["out"]["kernel"], p["out_norm"])
    found = model.bind(toy.parameters(model)).projections["text"](x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, toy.JOINT], ids=str)
def test_empty_masks_give_finite_losses_and_gradients(changes):
    model = toy.model(changes)
    params, key = toy.parameters(model), jax.random.key(0)
    absent = toy.batch(present={m: np.zeros(6, bool) for m in model.names})
    unweighted = {**toy.batch(), "weight": np.zeros(6, np.float32)}
    for objective in (Contrastive(model, model.names), Masd(model, ("audio",))):
        step = jax.jit(objective.value_and_grad)
        for batch in (absent, unweighted):
            (loss, _), grads = step(params, {}, {"labelled": batch, "unlabelled": batch}, key)
            assert loss == 0
            assert all(not np.asarray(g).any() for g in jax.tree.leaves(grads))


def gradient_support(model, params, batch, names):
    """Paths of the parameters whose gradient of the logits for `names` is not zero."""

    def total(params):
        module = model.bind(params)
        lengths = {m: batch["length"][m] for m in names}
        parts = module.parts({m: batch["inputs"][m] for m in names}, lengths)
        out = module.classify(module.fuse(parts, {m: batch["present"][m] for m in names}))
        return jnp.sum(out * jnp.asarray(np.random.default_rng(0).normal(size=out.shape)))

    return {p for p, g in tree.flatten(jax.jit(jax.grad(total))(params)).items() if np.abs(g).max() > 1e-9}


@pytest.mark.parametrize("changes", [
    {"adapter_depth": 1}, {"embedding": "backbone", "adapter_depth": 0, "class_token": True}, toy.JOINT,
    {**toy.JOINT, "stream_norms": "shared"},
], ids=str)  # fmt: skip
def test_in_classification_names_the_parameters_that_the_logits_depend_on(changes):
    model = toy.model(changes)
    params, batch = toy.parameters(model), toy.batch()
    for names in (["audio"], ["image", "text"]):
        claimed = {p for p in toy.shapes(model) if model.in_classification(p, names)}
        assert gradient_support(model, params, batch, names) == claimed


@pytest.mark.parametrize("changes", [{"adapter_depth": 1}, {**toy.JOINT, "stream_norms": "shared"}], ids=str)
def test_contrastive_pretraining_trains_what_its_loss_depends_on(changes):
    model = toy.model(changes)
    objective = Contrastive(model, ("audio", "text"))
    claimed = {p for p in toy.shapes(model) if objective.trains(p)}
    batches = {"unlabelled": toy.batch()}
    grads = jax.jit(jax.grad(lambda p: objective.loss(p, {}, batches, jax.random.key(0))[0]))(toy.parameters(model))
    assert {p for p, g in tree.flatten(grads).items() if np.abs(g).max() > 1e-9} == claimed
