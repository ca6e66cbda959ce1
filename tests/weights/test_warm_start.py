"""A parameter tree started from another: what is taken, resized, left fresh and dropped, against sums written out."""

import jax
import numpy as np
import pytest

from mmr_jax import config as configs
from mmr_jax import tree
from mmr_jax.errors import UserError
from mmr_jax.weights import Layout, layouts, warm_start
from mmr_jax.weights.resize import resize

RNG = np.random.default_rng(0)
TABLE, KERNEL = "encoder/tokenizers/{}/position", "encoder/tokenizers/{}/embed/kernel"


def values(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def start(path, target, source, before=None, after=None, **options):
    """The leaf at `path` of a tree that holds little else, and the account."""
    name = path.split("/")[2]
    params, account = warm_start(
        tree.unflatten({path: target, "x": np.zeros(1, np.float32)}),
        tree.unflatten({path: source, "x": np.ones(1, np.float32)}),
        {name: after} if after else None,
        {name: before} if before else None,
        **options,
    )
    return tree.flatten(params)[path], account


def test_account():
    target = {"a": values(2, 3), "head": {"kernel": values(3, 5), "bias": values(5)}, "new": values(2)}
    source = {"a": values(2, 3), "head": {"kernel": values(3, 7), "bias": values(5)}, "gone": values(4)}
    params, account = warm_start(target, source)
    assert account == {"used": ["a"], "resized": [], "fresh": ["head/bias", "head/kernel", "new"], "dropped": ["gone"]}
    np.testing.assert_array_equal(params["a"], source["a"])
    for path in ("head/kernel", "head/bias", "new"):
        np.testing.assert_array_equal(tree.flatten(params)[path], tree.flatten(target)[path])
    same, account = warm_start(target, {**source, "head": {"kernel": values(3, 5), "bias": values(5)}}, skip=("a",))
    assert account["used"] == ["head/bias", "head/kernel"] and account["fresh"] == ["a", "new"]
    np.testing.assert_array_equal(same["a"], target["a"])


def test_dtype_is_the_targets_and_jax_arrays_are_taken():
    params, _ = warm_start({"a": jax.numpy.zeros(3)}, {"a": np.arange(3.0)})
    assert params["a"].dtype == np.float32 and list(params["a"]) == [0, 1, 2]


@pytest.mark.parametrize("before, after", [((4, 6), (8, 3)), ((3, 3), (7, 2)), ((1, 5), (3, 5))])
def test_bilinear_against_jax(before, after):
    table = values(before[0] * before[1], 3)
    found = resize(table, before, after)
    picture = jax.image.resize(table.reshape(*before, 3), (*after, 3), "linear", antialias=False)
    np.testing.assert_allclose(found, picture.reshape(-1, 3), atol=1e-5)


def cubic_at(line, place):
    """Cubic convolution with a = -0.75 at one place, edges repeated, by its piecewise formula."""
    total, low = 0.0, int(np.floor(place))
    for tap in range(low - 1, low + 3):
        x = abs(place - tap)
        weight = 1.25 * x**3 - 2.25 * x**2 + 1 if x <= 1 else -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
        total += weight * line[min(max(tap, 0), len(line) - 1)]
    return total


@pytest.mark.parametrize("before, after", [((4, 6), (8, 3)), ((14, 14), (3, 5))])
def test_bicubic_against_a_loop(before, after):
    table = values(before[0] * before[1], 1).astype(np.float64)
    grid, expected = table.reshape(before), np.zeros(after)
    for i in range(after[0]):
        for j in range(after[1]):
            at = [(k + 0.5) * b / a - 0.5 for k, b, a in zip((i, j), before, after, strict=True)]
            expected[i, j] = cubic_at([cubic_at(row, at[1]) for row in grid], at[0])
    np.testing.assert_allclose(resize(table, before, after, "bicubic").reshape(after), expected, atol=1e-12)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_resizing_keeps_constants_and_the_same_grid(method):
    np.testing.assert_allclose(resize(np.full((12, 2), 3.0), (3, 4), (7, 5), method), 3.0, atol=1e-12)
    table = values(12, 2)
    np.testing.assert_array_equal(resize(table, (3, 4), (3, 4), method), table)


def test_the_class_row_is_kept_dropped_or_fresh():
    path, big, small = TABLE.format("image"), values(10, 2), values(4, 2)
    resized = resize(big[1:], (3, 3), (2, 2))
    grids = Layout((3, 3)), Layout((2, 2))
    found, account = start(path, values(5, 2), big, *grids)
    np.testing.assert_allclose(found, np.concatenate([big[:1], resized]))
    assert account["resized"] == [path]
    found, _ = start(path, small, big, *grids)
    np.testing.assert_allclose(found, resized)
    fresh = values(5, 2)
    found, _ = start(path, fresh, big[1:], *grids)
    np.testing.assert_allclose(found, np.concatenate([fresh[:1], resized]))


def test_equal_counts_on_other_grids_are_resized():
    """A spectrogram of 4 x 2 is no 2 x 4 one, though their tables are of one shape."""
    path, table = TABLE.format("audio"), values(8, 3)
    found, account = start(path, values(8, 3), table, Layout((4, 2)), Layout((2, 4)))
    np.testing.assert_allclose(found, resize(table, (4, 2), (2, 4)))
    assert account["resized"] == [path]
    found, account = start(path, values(8, 3), table, Layout((4, 2)), Layout((4, 2)))
    np.testing.assert_array_equal(found, table)
    assert path in account["used"]


def test_text_and_decoder_tables():
    path, table = TABLE.format("text"), values(6, 2)
    found, _ = start(path, values(3, 2), table, Layout((6,)), Layout((3,)))
    np.testing.assert_allclose(found, table.reshape(3, 2, 2).mean(axis=1), atol=1e-6)
    found, _ = start("decoder/outputs/audio/position", values(2, 2), table[:4], Layout((2, 2)), Layout((1, 2)))
    np.testing.assert_allclose(found, (table[:2] + table[2:4]) / 2, atol=1e-6)


def test_pictures_to_video():
    table, path = values(5, 2), TABLE.format("image")
    found, _ = start(path, values(9, 2), table, Layout((2, 2)), Layout((2, 2, 2)))
    np.testing.assert_array_equal(found, np.concatenate([table, table[1:]]))
    kernel, path = values(2 * 3 * 3, 4), KERNEL.format("image")
    found, account = start(path, values(2 * 18, 4), kernel, Layout((2, 2), (2, 3, 3)), Layout((2, 2, 2), (2, 2, 3, 3)))
    frame = values(18)
    np.testing.assert_allclose(np.concatenate([frame, frame]) @ found, frame @ kernel, rtol=1e-4, atol=1e-5)
    assert account["resized"] == [path]


def test_channels_of_patch_kernels():
    colours, grey, path = values(2 * 2 * 3, 5), values(4, 5), KERNEL.format("image")
    three, one = Layout((2, 2), (2, 2, 3)), Layout((2, 2), (2, 2, 1))
    found, _ = start(path, values(4, 5), colours, three, one)
    expected = [[sum(colours[p * 3 + c, d] for c in range(3)) for d in range(5)] for p in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    found, _ = start(path, values(12, 5), grey, one, three)
    pixels = values(4)
    np.testing.assert_allclose(np.repeat(pixels, 3) @ found, pixels @ grey, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path, target, source, before, after", [
    (TABLE.format("image"), (4, 2), (9, 2), None, None),
    (TABLE.format("image"), (4, 2), (9, 3), Layout((3, 3)), Layout((2, 2))),
    (TABLE.format("image"), (4, 2), (12, 2), Layout((3, 3)), Layout((2, 2))),
    (TABLE.format("image"), (4, 2), (6, 2), Layout((6,)), Layout((2, 2, 1))),
    (KERNEL.format("image"), (64, 2), (16, 2), Layout((2, 2), (4, 4, 1)), Layout((2, 2), (8, 8, 1))),
    (KERNEL.format("image"), (32, 2), (48, 2), Layout((2, 2), (4, 4, 3)), Layout((2, 2), (4, 4, 2))),
    ("encoder/norms/image/scale", (4,), (5,), None, None),
], ids=str)  # fmt: skip
def test_what_cannot_be_resolved_names_the_path_and_both_shapes(path, target, source, before, after):
    with pytest.raises(UserError) as caught:
        start(path, values(*target), values(*source), before, after)
    message = str(caught.value)
    assert path in message and str(target) in message and str(source) in message and "\n" not in message


def test_nothing_in_common_is_refused():
    with pytest.raises(UserError, match="no weight fits: the model has 'a' .., the weights 'b'"):
        warm_start({"a": values(1)}, {"b": values(1)})
    with pytest.raises(UserError, match="choose bilinear or bicubic"):
        resize(values(4, 1), (2, 2), (3, 3), "nearest")


def test_layouts_of_configs():
    made = layouts({
        "audio": configs.spectrogram(frames=800, mels=128, patch_size=(16, 8)),
        "image": configs.image(height=32, width=64, patch_size=(8, 16)),
        "video": configs.video(frames=8, height=32, width=64, patch_size=(2, 8, 16)),
        "text": configs.text(length=9),
        "features": configs.features(length=5, dim=7),
        "unknown length": {"kind": "spectrogram", "patch_size": [16, 16]},
    })  # fmt: skip
    assert made == {
        "audio": Layout((50, 16), (16, 8, 1)),
        "image": Layout((4, 4), (8, 16, 3)),
        "video": Layout((4, 4, 4), (2, 8, 16, 3)),
        "text": Layout((9,)),
        "features": Layout((5,), (7,)),
        "unknown length": Layout(None, (16, 16, 1)),
    }
