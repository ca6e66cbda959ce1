"""Cropping, zooming and mirroring of frames, against numpy slices, an explicit interpolation and Pillow."""

import os

import jax
import numpy as np
import pytest
import toy
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image

from mmr_jax import config as configs
from mmr_jax.errors import UserError
from mmr_jax.models import augment, crop
from mmr_jax.models.blocks import BlockConfig
from mmr_jax.models.encoder_config import TowerConfig
from mmr_jax.models.patches import unpatchify
from mmr_jax.models.tokenizers import input_spec, make_tokenizer

KEY = jax.random.key(5)
EMITTERS = "xla_cpu_use_fusion_emitters"  # as outside of tests, since bounds are for programs that are compiled so
FUSED = {EMITTERS: True} if EMITTERS in os.environ["XLA_FLAGS"] else None
TOWER = TowerConfig(BlockConfig(16, 2, 32, "gelu", 1e-6, False, "float32", "xla"), 1)
VIDEO = dict(frames=4, height=8, width=8, patch_size=(2, 4, 4), mean=0.0, std=1.0)
IMAGE = dict(height=8, width=8, patch_size=(4, 4), mean=0.0, std=1.0)


def pixels(*shape, seed=1):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def tokenizer(cfg):
    return make_tokenizer("clip", configs.freeze(configs.ConfigDict(cfg)), TOWER, nnx.Rngs(0))


def seen(made, raw, rng=None):
    """What the model sees, as pixels 0..255 [B, (frames,) height, width, C]."""
    length = np.full(len(raw), input_spec(made.cfg)[2], np.int32)
    return np.asarray(unpatchify(made.patches(raw, length, rng), made.grid, tuple(made.cfg.patch_size))) * 255


def interpolated(frame, top, left, factor, size):
    """Bilinear, pixel by pixel in float64: frame [H, W, C] enlarged by `factor`, of which `size` is cut out."""
    out = np.zeros((*size, frame.shape[-1]))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max(top + (i + 0.5) / factor - 0.5, 0), frame.shape[0] - 1)
            x = min(max(left + (j + 0.5) / factor - 0.5, 0), frame.shape[1] - 1)
            r, c = int(y), int(x)
            r2, c2, v, u = min(r + 1, frame.shape[0] - 1), min(c + 1, frame.shape[1] - 1), y - r, x - c
            above = (1 - u) * frame[r, c] + u * frame[r, c2]
            out[i, j] = (1 - v) * above + v * ((1 - u) * frame[r2, c] + u * frame[r2, c2])
    return out


@pytest.mark.parametrize("sent, size, start", [((12, 12), (8, 8), (2, 2)), ((11, 14), (8, 8), (1, 3))])
def test_without_a_key_it_is_the_centre(sent, size, start):
    raw = pixels(3, 2, *sent, 3)
    found = crop.view(raw, size, None, flip=1.0, zoom=1.5)
    expected = raw[:, :, start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_random_crops_are_slices_at_the_draws_and_reach_every_place():
    raw = pixels(400, 2, 11, 13, 3)
    window = crop.draw(KEY, 400, (11, 13), (8, 8))
    found = np.asarray(crop.cut(raw, window, (8, 8)))
    corners = list(zip(np.asarray(window.top), np.asarray(window.left), strict=True))
    assert found.dtype == np.uint8 and {*corners} == {(t, n) for t in range(4) for n in range(6)}
    for row, (top, left) in enumerate(corners):
        np.testing.assert_array_equal(found[row], raw[row, :, top : top + 8, left : left + 8])
    counts = np.bincount([top for top, _ in corners])
    assert counts.min() > 70 and counts.max() < 130  # each of four places 100 times, give or take 3.5 deviations


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_products_as_on_a_tpu_equal_slices_exactly(dtype):
    raw = pixels(6, 2, 12, 15, 3)
    raw = raw if dtype == np.uint8 else (raw / np.float32(7)).astype(np.float32)
    window = crop.draw(KEY, 6, (12, 15), (8, 8))
    slices, products = (
        np.asarray(jax.jit(f, static_argnums=3)(raw, window.top, window.left, (8, 8)))
        for f in (crop.by_slices, crop.by_products)
    )
    assert slices.dtype == products.dtype == dtype
    np.testing.assert_array_equal(slices, products)


def test_a_zoom_of_one_is_the_crop():
    raw, window = pixels(5, 2, 12, 12, 3), crop.draw(KEY, 5, (12, 12), (8, 8))
    same = window._replace(factor=np.ones(5, np.float32))
    np.testing.assert_array_equal(crop.cut(raw, same, (8, 8)), crop.cut(raw, window, (8, 8)))
    np.testing.assert_array_equal(crop.view(raw, (8, 8), KEY, zoom=1.0), crop.view(raw, (8, 8), KEY))


def test_zoom_is_bilinear_with_the_frame_around_the_window():
    raw = pixels(6, 2, 12, 15, 3)
    window = crop.draw(KEY, 6, (12, 15), (8, 10), zoom=2.0)
    found = np.asarray(crop.cut(raw, window, (8, 10)))
    for b in range(6):
        for f in range(2):
            expected = interpolated(raw[b, f], *(float(v[b]) for v in window), (8, 10))
            np.testing.assert_allclose(found[b, f], expected, atol=1e-3)


def test_zoom_agrees_with_pillow():
    """Pillow's resampling of a box of the picture, in floating point; it antialiases, which enlarging leaves alone."""
    raw = pixels(8, 64, 64, 1)
    window = crop.draw(KEY, 8, (64, 64), (56, 56), zoom=1.25)
    found = np.asarray(crop.cut(raw, window, (56, 56)))[..., 0]
    for b in range(8):
        top, left, factor = (float(v[b]) for v in window)
        box = (left, top, left + 56 / factor, top + 56 / factor)
        picture = Image.fromarray(raw[b, ..., 0].astype(np.float32))
        expected = np.asarray(picture.resize((56, 56), Image.Resampling.BILINEAR, box=box))
        np.testing.assert_allclose(found[b], expected, atol=1e-2)


def test_the_published_recipe_is_zoom_125_of_frames_stored_at_256():
    """A short side from U[256, 320], then 224 anywhere: windows of 224 / s * 256 pixels of the stored frame."""
    window = crop.draw(KEY, 20_000, (256, 256), (224, 224), zoom=1.25)
    top, left, factor = (np.asarray(v, np.float64) for v in window)
    side = 256 * factor
    assert side.min() >= 256 and side.max() <= 320
    np.testing.assert_allclose(np.quantile(side, [0.1, 0.5, 0.9]), [262.4, 288, 313.6], atol=1)
    room = 256 - 224 / side * 256
    for corner in (top, left):
        assert corner.min() >= 0 and (corner <= room + 1e-3).all()
        np.testing.assert_allclose(np.quantile(corner / room, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
    assert abs(np.corrcoef(top / room, left / room)[0, 1]) < 0.03


def test_mirrored_twice_is_the_same_and_as_often_as_asked():
    raw = pixels(1000, 2, 4, 6, 3)
    flipped = np.asarray(crop.view(raw, (4, 6), KEY, flip=0.3))
    same, turned = ((flipped == other).all((1, 2, 3, 4)) for other in (raw, raw[..., ::-1, :]))
    np.testing.assert_array_equal(same, ~turned)
    assert flipped.dtype == np.uint8 and abs(turned.mean() - 0.3) < 0.05
    np.testing.assert_array_equal(crop.mirror(crop.mirror(raw, turned), turned), raw)
    np.testing.assert_array_equal(crop.view(raw, (4, 6), KEY, flip=1.0), raw[..., ::-1, :])


@pytest.mark.parametrize("settings", [dict(), dict(flip=0.5), dict(zoom=1.4, flip=0.5)])
def test_the_same_window_for_all_frames_inside_and_outside_jit(settings):
    raw = np.repeat(pixels(6, 1, 12, 12, 3), 4, axis=1)
    found = np.asarray(crop.view(raw, (8, 8), KEY, **settings))
    np.testing.assert_array_equal(found, np.repeat(found[:, :1], 4, axis=1))
    alone = np.asarray(crop.view(raw[:, 0], (8, 8), KEY, **settings))  # a still picture is cut like a clip
    np.testing.assert_allclose(found[:, 0], alone, atol=1e-4)
    jitted = np.asarray(jax.jit(lambda x, k: crop.view(x, (8, 8), k, **settings), compiler_options=FUSED)(raw, KEY))
    np.testing.assert_allclose(jitted, found, atol=1e-4 if "zoom" in settings else 0)


@pytest.mark.parametrize("zoom", [1.0, 1.3])
def test_batches_over_devices_stay_where_they_are(zoom):
    rows = NamedSharding(toy.mesh(data=8), PartitionSpec("data"))
    raw = pixels(8, 2, 12, 12, 3)
    program = jax.jit(
        lambda x, k: crop.view(x, (8, 8), k, zoom=zoom, flip=0.5), out_shardings=rows, compiler_options=FUSED
    )
    placed = jax.device_put(raw, rows)
    assert "all-gather" not in program.lower(placed, KEY).compile().as_text()
    np.testing.assert_allclose(program(placed, KEY), crop.view(raw, (8, 8), KEY, zoom=zoom, flip=0.5), atol=1e-4)


def test_video_is_cropped_by_its_tokenizer():
    made = tokenizer(configs.video(**VIDEO, stored=12))
    raw = pixels(5, 4, 12, 12, 3)
    assert input_spec(made.cfg) == ((4, 12, 12, 3), np.uint8, 4)
    for _ in range(2):  # evaluation has nothing random
        np.testing.assert_allclose(seen(made, raw), raw[:, :, 2:10, 2:10], atol=1e-3)
    trained = seen(made, raw, KEY)
    corners = [
        [(t, n) for t in range(5) for n in range(5) if np.allclose(row, source[:, t : t + 8, n : n + 8], atol=1e-3)]
        for row, source in zip(trained, raw, strict=True)
    ]
    assert all(len(found) == 1 for found in corners) and len({found[0] for found in corners}) > 2
    assert not np.allclose(trained, seen(made, raw, jax.random.key(6)))


def test_images_of_several_frames_are_cropped():
    made = tokenizer(configs.image(**IMAGE, frames=3, stored=12))
    raw = pixels(5, 3, 12, 12, 3)
    assert input_spec(made.cfg) == ((3, 12, 12, 3), np.uint8, 1)
    np.testing.assert_allclose(seen(made, raw), raw[:, 1, 2:10, 2:10], atol=1e-3)
    np.testing.assert_allclose(seen(made, raw[:, 2]), raw[:, 2, 2:10, 2:10], atol=1e-3)  # one frame, as evaluated


def test_what_shifts_and_turns_comes_after_the_crop():
    changes = dict(shift=1.0, rotate=5.0, scale=0.1, flip=1.0, zoom=1.0)
    made = tokenizer(configs.image(**IMAGE, stored=12, augment=changes))
    raw = pixels(4, 12, 12, 3)
    window_key, _ = jax.random.split(jax.random.fold_in(KEY, 2))
    cut = crop.cut(raw, crop.draw(window_key, 4, (12, 12), (8, 8)), (8, 8))[..., ::-1, :]
    expected = augment.image(cut / np.float32(255), KEY, shift=1.0, rotate=5.0, scale=0.1)
    np.testing.assert_allclose(seen(made, raw, KEY), np.asarray(expected) * 255, atol=1e-2)


def test_frames_that_are_sent_as_seen_are_untouched():
    made = tokenizer(configs.video(**VIDEO))
    raw = pixels(2, 4, 8, 8, 3)
    for key in (None, KEY):
        np.testing.assert_allclose(seen(made, raw, key), raw, atol=1e-3)
    assert input_spec(made.cfg)[0] == (4, 8, 8, 3)


def test_a_model_sees_the_centre_alone():
    modalities = {"audio": toy.MODALITIES["audio"], "clip": configs.video(**VIDEO, stored=12)}
    made = toy.model(modalities=modalities)
    params, batch = toy.parameters(made), toy.batch(4, modalities=modalities)
    assert batch["inputs"]["clip"].shape == (4, 4, 12, 12, 3)
    module = made.bind(params)
    parts = module.parts(batch["inputs"], batch["length"])
    batch["inputs"]["clip"] = batch["inputs"]["clip"].copy()
    batch["inputs"]["clip"][:, :, :2] ^= 255  # outside the centre
    np.testing.assert_array_equal(module.parts(batch["inputs"], batch["length"])["clip"], parts["clip"])


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(stored=7), "stored=7 is less than height=8"),
        (dict(stored=-1), "stored is -1"),
        (dict(stored=12.0), "stored is 12.0"),
        (dict(stored=12, width=16), "8 x 16 is not"),
        (dict(stored=12, height=9, width=9), "not divisible by patch_size"),
        (dict(augment=dict(zoom=0.8)), "augment.zoom is 0.8"),
        (dict(augment=dict(flip=1.5)), "augment.flip is 1.5"),
    ],
)
@pytest.mark.parametrize("make, defaults", [(configs.video, VIDEO), (configs.image, IMAGE)])
def test_what_cannot_be_cropped_is_refused(make, defaults, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        tokenizer(make(**{**defaults, **changes}))
    assert "'clip'" in str(caught.value) and "\n" not in str(caught.value)


def test_frames_of_another_size_than_the_config_says_are_refused():
    with pytest.raises(UserError, match="frames are 8 x 8, the config says 12 x 12"):
        seen(tokenizer(configs.video(**VIDEO, stored=12)), pixels(2, 4, 8, 8, 3))
