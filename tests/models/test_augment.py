import jax
import numpy as np

from mmr_jax.models import augment


def test_bands_have_the_published_widths_and_places():
    """As torchaudio: width U(0, 6) and start U(0, 20 - width), both rounded down."""
    x = np.ones((8000, 20, 4), np.float32)
    hidden = np.asarray(augment.spectrogram(x, jax.random.key(0), time_mask=6, fill=-7.0) == -7).all(2)
    rng = np.random.default_rng(0)
    width = rng.random(200_000) * 6
    start = np.floor(rng.random(200_000) * (20 - width))
    places = np.arange(20)
    expected = ((places >= start[:, None]) & (places < (start + np.floor(width))[:, None])).mean(0)
    np.testing.assert_allclose(np.bincount(hidden.sum(1), minlength=6) / 8000, np.full(6, 1 / 6), atol=0.02)
    np.testing.assert_allclose(hidden.mean(0), expected, atol=0.02)


def test_masks_come_before_noise_and_before_the_roll():
    plain = np.arange(1, 11, dtype=np.float32) * 100
    x = np.broadcast_to(plain[None, :, None], (64, 10, 3))
    settings = dict(time_mask=5, roll=10, uniform_noise=0.5, fill=-50.0)
    found = np.asarray(augment.spectrogram(x, jax.random.key(3), **settings))
    base = np.rint(found / 50) * 50  # what was there before the noise, which is below 0.5
    assert (found >= base).all() and (found - base).max() < 0.5 and (found[base == -50] > -50).all()
    shifts = set()
    for clip in base[:, :, 0]:
        back = [np.roll(clip, -n) for n in range(10)]
        (shift,) = [n for n, row in enumerate(back) if ((row == plain) | (row == -50)).all()]
        hidden = np.flatnonzero(back[shift] == -50)
        assert len(hidden) < 5 and (np.diff(hidden) == 1).all()  # one band, never across the ends
        shifts.add(shift)
    assert len(shifts) == 10


def test_uniform_noise_is_a_level_per_example_times_a_draw_per_cell():
    noise = np.asarray(augment.spectrogram(np.zeros((400, 30, 20), np.float32), jax.random.key(0), uniform_noise=0.1))
    level = noise.max((1, 2))  # of 600 uniform draws: about the level itself
    assert noise.min() >= 0 and noise.max() < 0.1
    np.testing.assert_allclose(np.sort(level), 0.1 * (np.arange(400) + 0.5) / 400, atol=0.01)
    scaled = noise / level[:, None, None]
    np.testing.assert_allclose([scaled.mean(), scaled.var()], [0.5, 1 / 12], rtol=0.02)


def test_what_moves_stays_within_the_clip():
    """Roll and time bands act on a clip's own frames: all of them stay, and the padding behind is untouched."""
    x = np.broadcast_to(np.arange(1.0, 21.0, dtype=np.float32)[None, :, None], (40, 20, 3))
    valid = np.arange(40) % 21
    found = np.asarray(augment.spectrogram(x, jax.random.key(0), valid, roll=6))[..., 0]
    for row, n in zip(found, valid, strict=True):
        assert sorted(row[:n]) == list(range(1, n + 1)) and (row[n:] == x[0, n:, 0]).all()
    assert any((row[:n] != x[0, :n, 0]).any() for row, n in zip(found, valid, strict=True))
    banded = np.asarray(augment.spectrogram(x, jax.random.key(0), valid, time_mask=9, fill=-1.0))[..., 0]
    hidden = banded == -1.0
    assert hidden.any() and all(not row[n:].any() for row, n in zip(hidden, valid, strict=True))
