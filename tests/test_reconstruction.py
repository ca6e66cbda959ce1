"""Reconstructions: what is pasted where, the errors of what was hidden, and how each kind of modality is drawn."""

import functools

import jax
import numpy as np
import pytest
import toy
from PIL import Image

from mmr_jax import config as configs
from mmr_jax.data.source import load_dataset
from mmr_jax.data.text import encode
from mmr_jax.inspection import text_panel
from mmr_jax.inspection.pictures import GREY, draw_example, pictures, pixels
from mmr_jax.inspection.reconstruct import choose, fill, hidden_errors
from mmr_jax.models.decoder import build_decoder
from mmr_jax.objectives.masked import Masked

KINDS = {
    "audio": toy.MODALITIES["audio"],
    "clip": configs.video(frames=4, height=8, width=12, patch_size=(2, 4, 4)),
    "image": configs.image(height=8, width=8, patch_size=(4, 4), mean=(0.4, 0.5, 0.6), std=0.3),
    "sensor": configs.features(length=6, dim=5),
    "text": toy.MODALITIES["text"],
}


@functools.cache
def case(norm_targets=True, class_token=False):
    """(objective, params, batch, filled) over every kind of modality; example 1 lacks the image."""
    model = toy.model({**toy.JOINT, "class_token": class_token, "pool": "mean"}, KINDS)
    decoder = configs.freeze(configs.ConfigDict(dict(width=16, depth=1, heads=2, mlp_dim=16)))
    names = tuple(sorted(KINDS))
    masking = tuple((m, 0.6, "uniform") for m in names)
    objective = Masked(model, build_decoder(model, decoder, names), masking, norm_targets=norm_targets)
    params, _ = objective.init(jax.random.key(0))
    batch = toy.batch(3, present={"image": [1, 0, 1]}, modalities=KINDS)
    return objective, params, batch, fill(objective, params, batch, jax.random.key(1))


def tokenizer(name):
    objective = case()[0]
    return objective.model.bind(objective.model.shapes).encoder.tokenizers[name]


@pytest.mark.parametrize("norm_targets, class_token", [(True, False), (False, True)])
def test_predictions_stand_where_patches_were_hidden(norm_targets, class_token):
    objective, params, batch, filled = case(norm_targets, class_token)

    @jax.jit  # one program, as in `fill`: two would round in other places
    def run(params, batch, key):
        prepared = objective.prepare(params, batch, key, augment=False)
        made = objective.forward(params, *prepared)[2]
        return prepared[0], made.predicted, made.places

    patches, found, _ = run(params, batch, jax.random.key(1))
    for m, f in filled.items():
        given, hidden = np.asarray(patches[m]), f.hidden
        np.testing.assert_array_equal(f.output[~hidden], given[~hidden])  # bit for bit
        assert hidden.any() and not (hidden & ~f.exists).any()
        predicted = np.asarray(found[m], np.float64)
        if m == "text":
            np.testing.assert_array_equal(f.output[hidden], predicted[hidden].argmax(-1))
            continue
        if norm_targets:
            true = given.astype(np.float64)
            predicted = predicted * np.sqrt(true.var(-1, ddof=1, keepdims=True) + 1e-6) + true.mean(-1, keepdims=True)
        toy.assert_close(f.output[hidden], predicted[hidden])


def test_pixels_of_an_image_one_by_one():
    """Straight from the uint8 input and from the prediction of each patch, in normalised units."""
    _, _, batch, filled = case()
    f, raw = filled["image"], batch["inputs"]["image"][0]
    shown = pixels(tokenizer("image"), f.output[0])
    for y in range(8):
        for x in range(8):
            patch, inside = y // 4 * 2 + x // 4, ((y % 4) * 4 + x % 4) * 3
            if f.hidden[0, patch]:
                np.testing.assert_array_equal(shown[y, x], f.predicted[0, patch, inside : inside + 3])
            else:
                np.testing.assert_allclose(shown[y, x], (raw[y, x] / 255 - [0.4, 0.5, 0.6]) / 0.3, atol=1e-5)


def test_what_is_absent_is_neither_hidden_nor_counted():
    f = case()[3]["image"]
    assert not f.exists[1].any() and not f.hidden[1].any()
    assert f.errors["hidden"] == 2 * 3  # of 4 patches int(4 * .4) = 1 stays


def test_errors_against_a_blind_guess():
    rng = np.random.default_rng(0)
    patches, hidden = rng.normal(2, 3, (4, 5, 6)).astype(np.float32), rng.random((4, 5)) < 0.5
    assert hidden_errors(np.zeros_like(patches), patches, hidden, True)["ratio"] == pytest.approx(1, abs=1e-5)
    means = np.broadcast_to(patches.mean(-1, keepdims=True), patches.shape)
    assert hidden_errors(means, patches, hidden, False)["ratio"] == pytest.approx(1, abs=1e-5)
    made = hidden_errors(patches + 2 * hidden[..., None] + 99 * ~hidden[..., None], patches, hidden, False)
    assert made["error"] == pytest.approx(4, abs=1e-3) and made["hidden"] == hidden.sum()
    ids, logits = rng.integers(0, 7, (4, 5)), np.zeros((4, 5, 7), np.float32)
    assert hidden_errors(logits, ids, hidden, True)["ratio"] == pytest.approx(1)
    sure = 50 * np.eye(7, dtype=np.float32)[np.where(hidden, ids, 0)]
    assert hidden_errors(sure, ids, hidden, True)["right"] == 1
    assert hidden_errors(logits, ids, np.zeros((4, 5), bool), True) == {"hidden": 0}


def test_examples_of_different_classes_come_first():
    class Labelled:
        def __init__(self, labels):
            self.labels = lambda: (np.array(labels), np.arange(len(labels)))

    assert choose(Labelled([2, 2, 0, 2, 1, 0]), 3).tolist() == [0, 2, 4]
    assert choose(Labelled([2, 2, 0, 2, 1, 0]), 4).tolist() == [0, 1, 2, 4]
    assert choose(Labelled([1, 1]), 5).tolist() == [0, 1]
    assert choose(Labelled([[1, 0], [1, 0], [1, 1]]), 2).tolist() == [0, 2]


def test_low_frequencies_are_at_the_bottom_and_time_runs_right():
    values = np.zeros((4, 32))  # grid 2 x 2 of patches 4 (time) x 8 (mel), time-major
    values[2, 1 * 8 + 3] = 1  # the fifth frame and one more, mel 3
    assert np.argwhere(pixels(tokenizer("audio"), values)[..., 0]).tolist() == [[16 - 1 - 3, 5]]


def test_frames_of_a_video_stand_side_by_side():
    values = np.zeros((12, 2 * 4 * 4 * 3))  # grid 2 x 2 x 3
    values[6 + 3 + 2, (1 * 16 + 2 * 4 + 1) * 3] = 1  # frame 3, row 4 + 2, column 8 + 1, red
    assert np.argwhere(pixels(tokenizer("clip"), values)).tolist() == [[6, 3 * 12 + 9, 0]]


def test_hidden_is_grey_and_what_does_not_exist_is_white():
    values = np.random.default_rng(0).uniform(-1, 1, (4, 48))
    hidden, exists = np.array([False, True, False, False]), np.array([True, True, True, False])
    output = np.where(hidden[:, None], -values, values)
    before, seen, after = pictures(tokenizer("image"), values, output, hidden, exists)
    assert (seen[:4, 4:] == GREY).all() and (seen[4:, 4:] == 1).all() and (before[4:, 4:] == 1).all()
    np.testing.assert_array_equal(seen[:4, :4], before[:4, :4])
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert not np.array_equal(after[:4, 4:], before[:4, 4:])


def test_bytes_decode_to_characters():
    spec = configs.text(length=16)
    ids, length = encode("a é\n$z", spec)
    assert text_panel.decode(spec, (), ids[:length]) == ["‹", "a", " ", "", "é", "·", "$", "z", "›"]


def test_words_are_looked_up_and_those_that_hash_alike_are_all_named():
    spec = configs.text(length=4, vocab_size=5, tokenizer="word")  # two ids for all words
    words = ("red", "green", "blue", "green")
    ids = {w: int(encode(w, spec)[0][0]) for w in words}
    found = text_panel.decode(spec, words, np.array([ids["red"], 3, 4, 2]))
    assert "red" in found[0].split("/") and found[3] == "›"
    assert sorted("/".join(found[1:3]).split("/")) == ["blue", "green", "red"]
    assert text_panel.decode(spec, (), np.array([3, 4])) == ["#3", "#4"]


def test_every_word_of_the_synthetic_captions_is_known():
    config = toy.get_config()
    spec = configs.text(length=12, vocab_size=2**20, tokenizer="word")
    found = load_dataset(config.data, {"text": configs.ConfigDict(spec)})
    batch = found.splits["test"].take(range(16))
    for ids, length in zip(batch["inputs"]["text"], batch["length"]["text"], strict=True):
        words = text_panel.decode(spec, found.words, ids[:length])
        assert all(word in found.words or word == "›" for word in words)


def test_hidden_and_wrong_tokens_are_marked():
    spec, (ids, length) = configs.text(length=8), encode("abcd", configs.text(length=8))
    hidden = np.array([0, 1, 1, 0, 0, 0, 0, 0], bool)
    output = ids.copy()
    output[2] = ord("x") + 3
    shown, seen, made = text_panel.panels(spec, (), ids, output, hidden, np.arange(8) < length)
    assert "".join(t for t, _ in shown) == "‹abcd›" and {s for _, s in shown} == {"shown"}
    assert [s for _, s in seen] == ["shown", "hidden", "hidden", "shown", "shown", "shown"]
    assert made[1:4] == [("a", "right"), ("x", "wrong"), ("c", "shown")]


def test_lines_of_text_break_between_tokens():
    tokens = [("x" * 20, "shown"), ("y" * 9, "shown"), ("z", "shown")]
    assert text_panel.layout(tokens, 1) == ([(0, 0), (0, 21), (1, 0)], 2)


@pytest.mark.parametrize("example", [0, 1])  # the second lacks the image
def test_every_kind_is_drawn(example, tmp_path):
    filled = case()[3]
    shown = {
        m: (tokenizer(m), f.patches[example], f.output[example], f.hidden[example], f.exists[example])
        for m, f in filled.items()
    }
    png = draw_example("example $1: <b>", shown)
    assert png == draw_example("example $1: <b>", shown)
    (tmp_path / "x.png").write_bytes(png)
    picture = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    assert picture.shape[1] > 1000 and picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
