import jax
import numpy as np
import pytest

from mmr_jax.models import augment, frontend

SETTINGS = {"sample_rate": 16000, "num_mels": 128, "window_ms": 25.0, "hop_ms": 10.0, "window": "hann"}


def waves(reference):
    """{name: (wave as CAV-MAE's loader gives it to the filterbank, the published filterbank's output)}."""
    file = np.load(reference / "fbank.npz")
    found = {key[3:]: (file[f"wave{key[3:]}"], file[key]) for key in file.files if key.startswith("raw")}
    assert len(found) == 4
    return {name: (wave - wave.mean(), raw) for name, (wave, raw) in found.items()}


def mel_in_float64(wave, taper=0.5):
    """Frame by frame in float64: mean, pre-emphasis, window, FFT, triangles in mel, log. No folded matrix."""
    low, width = 1127 * np.log(1 + 20 / 700), 1127 * np.log((1 + 8000 / 700) / (1 + 20 / 700)) / 129
    mel = 1127 * np.log(1 + np.arange(256) * 16000 / 512 / 700)
    banks = np.stack([np.maximum(0, 1 - np.abs(mel - low - (i + 1) * width) / width) for i in range(128)])
    window, out = taper - (1 - taper) * np.cos(2 * np.pi * np.arange(400) / 399), []
    for start in range(0, len(wave) - 399, 160):
        frame = wave[start : start + 400] - wave[start : start + 400].mean()
        frame = (frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])) * window
        out.append(banks @ np.abs(np.fft.rfft(frame, 512))[:256] ** 2)
    return np.log(np.maximum(out, np.finfo(np.float32).eps))


def check_close(found, expected, name):
    """99.9 % of the cells within 1e-3, none off by more than 2e-2."""
    difference = np.abs(np.asarray(found, np.float64) - expected)
    assert found.shape == expected.shape
    assert np.mean(difference < 1e-3) >= 0.999 and difference.max() <= 2e-2, (name, difference.max())


def test_log_mel_agrees_with_the_published_filterbank(reference):
    for name, (wave, raw) in waves(reference).items():
        check_close(np.asarray(frontend.log_mel(wave[None], **SETTINGS))[0], raw, name)


@pytest.mark.parametrize("window, taper", [("hann", 0.5), ("hamming", 0.54)])
@pytest.mark.parametrize("loudness", [1.0, 0.002])
def test_log_mel_of_pcm_agrees_with_float64(reference, loudness, window, taper):
    settings = SETTINGS | {"window": window}
    for name, (wave, _) in waves(reference).items():
        pcm = np.clip(np.rint(loudness * wave * 32768), -32768, 32767).astype(np.int16)
        assert pcm.any()
        found = np.asarray(frontend.log_mel(pcm[None], **settings))[0]
        check_close(found, mel_in_float64(pcm.astype(np.float64) / 32768, taper), name)


def test_silence_and_a_constant_offset_are_at_the_floor():
    for level in (0, 1, -12000):
        found = np.asarray(frontend.log_mel(np.full((1, 4000), level, np.int16), **SETTINGS))
        np.testing.assert_allclose(found, np.log(np.finfo(np.float32).eps), atol=1e-5)


def test_log_mel_is_the_same_inside_jit(reference):
    jitted = jax.jit(lambda w: frontend.log_mel(w, **SETTINGS))
    for wave, _ in waves(reference).values():
        for sent in (wave[None], np.rint(wave * 32767)[None].astype(np.int16)):
            np.testing.assert_allclose(jitted(sent), frontend.log_mel(sent, **SETTINGS), rtol=0, atol=1e-5)


def test_pcm_is_scaled_to_one():
    pcm = np.random.default_rng(0).integers(-3000, 3000, (1, 2000)).astype(np.int16)
    found = frontend.log_mel(pcm, **SETTINGS)
    np.testing.assert_allclose(found, frontend.log_mel(pcm / np.float32(32768), **SETTINGS), atol=1e-5)


@pytest.mark.parametrize("samples, frames", [(399, 0), (400, 1), (559, 1), (560, 2), (1600, 8)])
def test_a_partial_frame_is_dropped(samples, frames):
    assert frontend.num_frames(samples, 400, 160) == frames


def test_filterbank_by_the_definition_of_its_triangles():
    banks = frontend.mel_filterbank(8, 256, 16000)
    mel = 1127 * np.log(1 + np.arange(128) * 16000 / 256 / 700)
    low, high = 1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700)
    width = (high - low) / 9
    for i in range(8):
        np.testing.assert_allclose(
            banks[:128, i], np.maximum(0, 1 - np.abs(mel - low - (i + 1) * width) / width), atol=1e-12
        )
    assert not banks[128].any()


def test_pixels_are_scaled():
    pixels = np.array([0, 51, 255], np.uint8)
    np.testing.assert_allclose(frontend.scale_pixels(pixels, 0.5, 0.25), [-2, -1.2, 2], rtol=1e-6)


def test_augmentation_off_changes_nothing():
    rng = jax.random.key(0)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    assert augment.image(x, rng) is x and augment.spectrogram(x[..., 0], rng) is not None
    np.testing.assert_array_equal(augment.spectrogram(x[..., 0], rng), x[..., 0])


def test_spec_augment_hides_bands_and_only_bands():
    x = np.random.default_rng(0).normal(size=(64, 20, 12)).astype(np.float32) + 5
    found = np.asarray(augment.spectrogram(x, jax.random.key(0), time_mask=6, mel_mask=4))
    hidden = found == 0
    np.testing.assert_array_equal(found[~hidden], x[~hidden])
    times, mels = hidden.all(2), hidden.all(1)
    np.testing.assert_array_equal(hidden, times[:, :, None] | mels[:, None, :])
    assert times.sum(1).max() == 5 and mels.sum(1).max() == 3
    for band in (*times, *mels):
        assert np.abs(np.diff(np.concatenate([[0], band.astype(int), [0]]))).sum() in (0, 2)


def test_roll_is_circular_and_noise_has_its_deviation():
    x = np.random.default_rng(0).normal(size=(16, 10, 4)).astype(np.float32)
    rolled = np.asarray(augment.spectrogram(x, jax.random.key(1), roll=3))
    shifts = [[n for n in range(-3, 4) if np.array_equal(np.roll(a, n, 0), b)] for a, b in zip(x, rolled, strict=True)]
    assert all(len(found) == 1 for found in shifts) and len({found[0] for found in shifts}) > 3
    noisy = np.asarray(augment.spectrogram(np.zeros((50, 40, 10), np.float32), jax.random.key(1), noise=0.3))
    np.testing.assert_allclose(noisy.std(), 0.3, rtol=0.05)


def test_image_is_shifted_by_at_most_what_is_asked():
    ramp = np.broadcast_to(np.arange(16, dtype=np.float32)[None, None, :, None], (32, 16, 16, 1))
    moved = np.asarray(augment.image(ramp, jax.random.key(0), shift=2.0)) - ramp
    inner = moved[:, :, 3:-3]
    np.testing.assert_allclose(inner, np.broadcast_to(inner[:, :1, :1], inner.shape), atol=1e-4)
    assert 1.5 < np.abs(inner).max() <= 2.0 + 1e-4
