"""Forward passes, losses and gradients equal those of the published implementations, through the importers.

Sizes come from the reference files. 2e-4 of the array's largest value is the bar; `REACHED` is what holds here.
"""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmr_jax import config as configs
from mmr_jax import methods
from mmr_jax.models.cavmae import MODES, finetuned_logits
from mmr_jax.models.model import build_model
from mmr_jax.models.patches import patchify
from mmr_jax.objectives import info_nce
from mmr_jax.objectives.contrastive import pair_accuracy
from mmr_jax.weights import from_published, to_published

REFERENCE = Path(os.environ.get("MMR_REFERENCE") or Path(__file__).parents[3] / "shared" / "reference")
pytestmark = pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference numbers in {REFERENCE}")
REACHED = 2e-5


@pytest.fixture(autouse=True)
def highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


@functools.cache
def reference(name):
    with np.load(REFERENCE / f"{name}.npz") as file:
        return json.loads(str(file["config"])), {key: file[key] for key in file.files if key != "config"}


def published(numbers, prefix="param/"):
    return {key.removeprefix(prefix): value for key, value in numbers.items() if key.startswith(prefix)}


def assert_close(found, expected, what):
    scale = max(np.abs(expected).max(), 1e-30)
    error = np.abs(np.asarray(found, np.float64) - expected).max() / scale
    assert error <= REACHED, f"{what}: {error:.1e} of the largest value"


def study(modalities, model, pretrain=None):
    config = configs.base("synthetic", modalities)
    for block, changes in ((config.model, model), (config.pretrain, pretrain or {})):
        for key, value in changes.items():
            configs.set_field(block, key, value)
    return config


def built(config, classes=3):
    frozen = configs.freeze(config)
    return build_model(frozen.model, frozen.modalities, classes)


# ---- CAV-MAE


def cavmae(sizes, pretrain=None, frames=None):
    frames = frames or sizes["audio_length"]
    depth, width = sizes["total_depth"], sizes["embed_dim"]
    patch = (sizes["patch_size"],) * 2
    modalities = {
        "audio": configs.spectrogram(
            samples=(frames - 1) * 160 + 400, frames=frames, mels=128, patch_size=patch, padding="input"
        ),
        "image": configs.image(height=sizes["img_size"], width=sizes["img_size"], patch_size=patch),
    }
    model = {"width": width, "depth": depth, "heads": sizes["num_heads"], "mlp_dim": sizes["mlp_ratio"] * width}
    model |= {"adapter_depth": sizes["modality_specific_depth"], "norm_eps": sizes["layer_norm_eps"], "fusion": "joint"}
    model |= {"positions": "sincos", "modality_token": True, "projection.kind": "none", "embedding": "backbone"}
    return study(modalities, {**model, "normalize": "layer"}, pretrain)


def pretraining(sizes, norm_targets):
    changes = {"objective": "masked", "contrastive_weight": sizes["contrast_loss_weight"], "direction": "backward"}
    changes |= {"reconstruction_weight": sizes["mae_loss_weight"], "temperature": sizes["temperature"]}
    changes |= {"masking.audio.ratio": sizes["mask_ratio_a"], "masking.image.ratio": sizes["mask_ratio_v"]}
    width = sizes["decoder_embed_dim"]
    changes |= {"decoder.width": width, "decoder.mlp_dim": sizes["mlp_ratio"] * width, "norm_targets": norm_targets}
    changes |= {"decoder.depth": sizes["decoder_depth"], "decoder.heads": sizes["decoder_num_heads"]}
    config = cavmae(sizes, changes)
    return methods.pretraining(config, built(config), ("audio", "image"))


def by_time(x, sizes):
    """Tokens of a spectrogram on axis 1, from mel-major (published) to time-major order."""
    rows = 128 // sizes["patch_size"]
    return x.reshape(len(x), rows, -1, *x.shape[2:]).swapaxes(1, 2).reshape(x.shape)


def patches(numbers, sizes):
    patch = (sizes["patch_size"],) * 2
    audio = patchify(jnp.asarray(numbers["in/audio"])[..., None], patch)
    return {"audio": audio, "image": patchify(jnp.asarray(numbers["in/img"].transpose(0, 2, 3, 1)), patch)}


def everything(batch, objective=None):
    tall = jnp.full((batch,), 10**6, jnp.int32)
    return {"audio": tall, "image": tall}, {"audio": tall > 0, "image": tall > 0}


@functools.cache
def cavmae_run(norm_targets):
    sizes, numbers = reference("cavmae_pretrain")
    objective = pretraining(sizes, norm_targets)
    converted = from_published(
        "cavmae", published(numbers), heads=sizes["num_heads"], decoder_heads=sizes["decoder_num_heads"]
    )
    fresh, _ = objective.init(jax.random.key(0))
    params = {**converted.params, "head": fresh["head"], "head_norm": fresh["head_norm"]}
    noise = {"audio": by_time(numbers["in/noise_a"], sizes), "image": numbers["in/noise_v"]}
    length, seen = everything(sizes["batch"])
    call = lambda p: objective.forward(p, patches(numbers, sizes), length, seen, noise)  # noqa: E731
    grads = jax.jit(jax.grad(lambda p: call(p)[0]))(params)
    return objective, params, jax.jit(call)(params), grads, converted


def test_cavmae_latents_pooled_streams_and_predictions():
    sizes, numbers = reference("cavmae_pretrain")
    _, _, (_, metrics, made), _, _ = cavmae_run(True)
    assert_close(made.latent, numbers["out/latent"], "latent")
    for m, key in (("audio", "ca"), ("image", "cv")):
        assert_close(made.pooled[m], numbers[f"out/{key}"].mean(axis=1), key)
    side = sizes["patch_size"]
    expected = by_time(numbers["out/pred_a"], sizes)  # within a patch: (mel, time) there, (time, mel) here
    expected = expected.reshape(*expected.shape[:2], side, side).swapaxes(2, 3).reshape(expected.shape)
    assert_close(made.predicted["audio"], expected, "pred_a")
    assert_close(made.predicted["image"], numbers["out/pred_v"], "pred_v")
    np.testing.assert_array_equal(~made.places["audio"].visible, by_time(numbers["out/mask_a"], sizes) > 0)
    np.testing.assert_array_equal(~made.places["image"].visible, numbers["out/mask_v"] > 0)
    assert_close(metrics["accuracy_audio-image"], numbers["out/c_acc"], "c_acc")


@pytest.mark.parametrize("kind", ["normpix", "rawpix"])
def test_cavmae_losses(kind):
    sizes, numbers = reference("cavmae_pretrain")
    _, _, (loss, metrics, _), _, _ = cavmae_run(kind == "normpix")
    assert_close(loss, numbers[f"{kind}/out/loss"], "loss")
    assert_close(metrics["reconstruction_audio"], numbers[f"{kind}/out/loss_mae_a"], "loss_mae_a")
    assert_close(metrics["reconstruction_image"], numbers[f"{kind}/out/loss_mae_v"], "loss_mae_v")
    weighted = sizes["contrast_loss_weight"] * metrics["contrastive"]
    assert_close(weighted, numbers["out/loss_c_weighted"], "loss_c_weighted")


@pytest.mark.parametrize("kind", ["normpix", "rawpix"])
def test_cavmae_gradients(kind):
    _, numbers = reference("cavmae_pretrain")
    _, _, _, grads, converted = cavmae_run(kind == "normpix")
    trained = {k: v for k, v in jax.device_get(grads).items() if k in converted.params}
    found = to_published(dataclasses.replace(converted, params=trained))
    expected = published(numbers, f"{kind}/grad/")
    assert len(expected) > 300
    for key, value in expected.items():
        if np.abs(value).max() > 0:
            assert_close(found[key], value, key)


def test_cavmae_both_directions():
    _, numbers = reference("cavmae_pretrain")
    a, v = numbers["out/ca"].mean(axis=1), numbers["out/cv"].mean(axis=1)
    temperature = reference("cavmae_pretrain")[0]["temperature"]
    assert_close(info_nce(v, a, temperature), numbers["out/nce_bidirectional"], "nce_bidirectional")
    there = jnp.ones(len(a), bool)
    both = (pair_accuracy(a, v, there) + pair_accuracy(v, a, there)) / 2
    assert_close(both, numbers["out/c_acc_bidirectional"], "c_acc_bidirectional")


def test_cavmae_features_without_masking():
    sizes, numbers = reference("cavmae_pretrain")
    objective, params, *_ = cavmae_run(True)
    length, _ = everything(sizes["batch"])

    def features(params):
        encoder = objective.model.bind({k: v for k, v in params.items() if k != "decoder"}).encoder
        embedded = encoder.embed(patches(numbers, sizes), length)
        return {m: encoder.stream(m, encoder.own(m, x, mask), mask).tokens for m, (x, mask) in embedded.items()}

    found = jax.jit(features)(params)
    assert_close(found["audio"], by_time(numbers["out/feat_a"], sizes), "feat_a")
    assert_close(found["image"], numbers["out/feat_v"], "feat_v")


@pytest.mark.parametrize("mode", MODES)
def test_cavmae_finetuning_modes(mode):
    sizes, numbers = reference("cavmae_finetune")
    model = built(cavmae(sizes, frames=numbers["in/audio"].shape[1]), classes=sizes["label_dim"])
    params = from_published("cavmae_ft", published(numbers), heads=sizes["num_heads"]).params
    length, _ = everything(sizes["batch"])

    def logits(params):
        module = model.bind(params)
        embedded = module.encoder.embed(patches(numbers, sizes), length)
        owned = {m: (module.encoder.own(m, x, mask), mask) for m, (x, mask) in embedded.items()}
        return finetuned_logits(module, mode, owned)

    assert_close(jax.jit(logits)(params), numbers[f"out/{mode}"], mode)


# ---- CLIP


@functools.cache
def clip():
    sizes, numbers = reference("clip")
    modalities = {
        "image": configs.image(
            height=sizes["image_resolution"],
            width=sizes["image_resolution"],
            patch_size=(sizes["vision_patch_size"],) * 2,
        ),
        "text": configs.text(length=sizes["context_length"], vocab_size=sizes["vocab_size"]),
    }
    width, heads, layers = sizes["vision_width"], sizes["vision_heads"], sizes["vision_layers"]
    config = study(modalities, {
        "width": width, "heads": heads, "depth": layers, "mlp_dim": 4 * width, "class_token": True, "pool": "cls",
        "norm_eps": sizes["layer_norm_eps"], "activation": sizes["activation"], "pre_norm": True, "patch_bias": False,
        "projection.dim": sizes["embed_dim"],
    })  # fmt: skip
    width, heads, layers = sizes["transformer_width"], sizes["transformer_heads"], sizes["transformer_layers"]
    config.model.overrides = {"text": {
        "width": width, "heads": heads, "depth": layers, "mlp_dim": 4 * width, "class_token": False, "pool": "last",
        "pre_norm": False, "causal": True,
    }}  # fmt: skip
    model = built(config)
    params = dict(from_published("clip", published(numbers), heads=sizes["vision_heads"]).params)
    scale = params.pop("logit_scale")
    params["head"] = model.init(jax.random.key(0))["head"]
    ids = numbers["in/tokens"]
    length = {"image": jnp.ones(len(ids), jnp.int32), "text": jnp.asarray(ids.argmax(axis=1) + 1)}

    def embeddings(params):
        module = model.bind(params)
        pixels = patchify(jnp.asarray(numbers["in/image"].transpose(0, 2, 3, 1)), (sizes["vision_patch_size"],) * 2)
        embedded = module.encoder.embed({"image": pixels, "text": jnp.asarray(ids)}, length)
        return {m: module.pooled(m, module.encoder.own(m, x, mask), mask) for m, (x, mask) in embedded.items()}

    return jax.jit(embeddings)(params), jnp.asarray(scale), numbers


def test_clip_features_and_logits():
    found, scale, numbers = clip()
    assert_close(found["image"], numbers["out/image_features"], "image_features")
    assert_close(found["text"], numbers["out/text_features"], "text_features")
    unit = {m: z / jnp.linalg.norm(z, axis=-1, keepdims=True) for m, z in found.items()}
    assert_close(jnp.exp(scale) * unit["image"] @ unit["text"].T, numbers["out/logits_per_image"], "logits_per_image")


def test_clip_loss_and_the_gradient_of_its_temperature():
    found, scale, numbers = clip()
    loss, grad = jax.value_and_grad(lambda s: info_nce(found["image"], found["text"], jnp.exp(-s)))(scale)
    assert_close(loss, numbers["out/loss"], "loss")
    assert_close(grad, numbers["grad/logit_scale"], "logit_scale")


# ---- MAE


@functools.cache
def mae_run(norm_targets):
    sizes, numbers = reference("mae")
    patch, width, inner = (sizes["patch_size"],) * 2, sizes["embed_dim"], sizes["decoder_embed_dim"]
    modalities = {"image": configs.image(height=sizes["img_size"], width=sizes["img_size"], patch_size=patch)}
    model = {
        "width": width,
        "depth": sizes["depth"],
        "heads": sizes["num_heads"],
        "mlp_dim": sizes["mlp_ratio"] * width,
    }
    model |= {
        "norm_eps": sizes["layer_norm_eps"],
        "positions": "sincos",
        "class_token": True,
        "projection.kind": "none",
    }
    changes = {"objective": "masked", "masking.image.ratio": sizes["mask_ratio"], "norm_targets": norm_targets}
    changes |= {"decoder.width": inner, "decoder.mlp_dim": sizes["mlp_ratio"] * inner}
    changes |= {"decoder.depth": sizes["decoder_depth"], "decoder.heads": sizes["decoder_num_heads"]}
    config = study(modalities, model, changes)
    objective = methods.pretraining(config, built(config), ("image",))
    converted = from_published(
        "mae", published(numbers), heads=sizes["num_heads"], decoder_heads=sizes["decoder_num_heads"]
    )
    params = {**converted.params, "head": objective.init(jax.random.key(0))[0]["head"]}
    pixels = patchify(jnp.asarray(numbers["in/img"].transpose(0, 2, 3, 1)), patch)
    there = jnp.ones(len(pixels), jnp.int32)
    call = lambda p: objective.forward(  # noqa: E731
        p, {"image": pixels}, {"image": there}, {"image": there > 0}, {"image": numbers["in/noise"]}
    )
    grads = jax.jit(jax.grad(lambda p: call(p)[0]))(params)
    return jax.jit(call)(params), grads, converted


def test_mae_latent_and_prediction():
    _, numbers = reference("mae")
    (_, _, made), _, _ = mae_run(True)
    assert_close(made.latent, numbers["out/latent"], "latent")
    assert_close(made.predicted["image"], numbers["out/pred"], "pred")
    np.testing.assert_array_equal(~made.places["image"].visible[:, 1:], numbers["out/mask"] > 0)


@pytest.mark.parametrize("kind", ["normpix", "rawpix"])
def test_mae_loss_and_gradients(kind):
    _, numbers = reference("mae")
    (loss, _, _), grads, converted = mae_run(kind == "normpix")
    assert_close(loss, numbers[f"{kind}/out/loss"], "loss")
    trained = {k: v for k, v in jax.device_get(grads).items() if k in converted.params}
    found = to_published(dataclasses.replace(converted, params=trained))
    for key, value in published(numbers, f"{kind}/grad/").items():
        assert_close(found[key], value, key)
