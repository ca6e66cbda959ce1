import jax
import numpy as np
import pytest

from mmr_jax.objectives.masking import hide, kept, masking_noise, places

RATIOS = (0.0, 0.3, 0.5, 0.65, 0.75, 0.9)


@pytest.mark.parametrize("ratio", RATIOS)
def test_kept_counts_as_the_published_code(ratio):
    assert [kept(n, ratio) for n in (16, 64, 196, 512)] == [int(n * (1 - ratio)) for n in (16, 64, 196, 512)]
    assert kept(0, ratio) == 0 and kept(1, ratio) == 1


def brute_force(tokens, mask, skip, noise, ratio):
    """Per example: (visible patches in the order of their noise, hidden patches)."""
    found = []
    for row in range(len(tokens)):
        there = [t for t in range(noise.shape[1]) if mask[row, skip + t]]
        order = sorted(there, key=lambda t: noise[row, t])
        keep = kept(len(there), ratio)
        found.append((order[:keep], order[keep:]))
    return found


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("ratio", RATIOS)
def test_hide_against_brute_force(ratio, skip):
    rng = np.random.default_rng(0)
    tokens, noise = rng.normal(size=(5, skip + 12, 3)).astype(np.float32), rng.random((5, 12)).astype(np.float32)
    mask = rng.random((5, skip + 12)) < [[1.0], [1.0], [0.5], [0.2], [0.0]]
    mask[:, :skip] = mask[:, skip:].any(axis=1, keepdims=True)
    found = jax.jit(lambda *a: hide(*a, ratio), static_argnums=2)(tokens, mask, skip, noise)
    assert found.tokens.shape == (5, skip + kept(12, ratio), 3)
    for row, (visible, hidden) in enumerate(brute_force(tokens, mask, skip, noise, ratio)):
        stays = found.tokens[row, skip:][np.asarray(found.mask[row, skip:])]
        np.testing.assert_array_equal(stays, tokens[row, [skip + t for t in visible]].reshape(-1, 3))
        assert sorted(visible) == np.flatnonzero(found.visible[row]).tolist()
        assert (
            sorted(hidden) == np.flatnonzero(np.asarray(found.exists[row]) & ~np.asarray(found.visible[row])).tolist()
        )
    np.testing.assert_array_equal(found.tokens[:, :skip], tokens[:, :skip])


@pytest.mark.parametrize("skip", [0, 1])
def test_places_lead_every_visible_patch_to_its_latent(skip):
    rng = np.random.default_rng(1)
    tokens, noise = rng.normal(size=(3, skip + 8, 2)).astype(np.float32), rng.random((3, 8)).astype(np.float32)
    hidden = hide(tokens, np.ones((3, skip + 8), bool), skip, noise, 0.5)
    latent = np.concatenate([np.zeros((3, 7, 2)), hidden.tokens], axis=1)
    found = places(hidden, skip, 7)
    back = np.take_along_axis(latent, np.asarray(found.index)[..., None], axis=1)
    there = np.asarray(found.visible)
    assert there.sum() == 3 * (skip + 4)
    np.testing.assert_array_equal(back[there], tokens[there])


@pytest.mark.parametrize("mode, columns, rows", [("time", 48, 0), ("frequency", 0, 6), ("time_frequency", 33, 4)])
def test_structured_modes_hide_whole_columns_and_rows(mode, columns, rows):
    """The published numbers for CAV-MAE's grid of 64 columns of time and 8 rows of mel at a ratio of 0.75."""
    noise = np.asarray(masking_noise(jax.random.key(3), mode, (64, 8), 0.75, 20)).reshape(20, 64, 8)
    hidden = noise >= 1.0
    whole_columns, whole_rows = hidden.all(axis=2), hidden.all(axis=1)
    assert (whole_columns.sum(axis=1) == columns).all() and (whole_rows.sum(axis=1) == rows).all()
    np.testing.assert_array_equal(hidden, whole_columns[:, :, None] | whole_rows[:, None, :])
    assert len({tuple(c) for c in whole_columns}) > 1 or not columns  # drawn per example


def test_uniform_noise_hides_every_patch_equally_often():
    noise = masking_noise(jax.random.key(0), "uniform", (4, 4), 0.75, 4000)
    hidden = hide(np.zeros((4000, 16, 1), np.float32), np.ones((4000, 16), bool), 0, noise, 0.75)
    share = np.asarray(hidden.visible).mean(axis=0)
    np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / 4000))
