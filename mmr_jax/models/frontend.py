"""Front ends that run on the device inside the compiled step: log-mel filterbank and pixel scaling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_LOG_FLOOR = float(np.finfo(np.float32).eps)
_PREEMPHASIS = 0.97


def _mel(hz):
    return 1127.0 * np.log1p(np.asarray(hz, np.float64) / 700.0)


def mel_filterbank(num_mels: int, fft_size: int, sample_rate: int, low_hz: float = 20.0) -> np.ndarray:
    """Triangles of equal width on the HTK mel scale, from `low_hz` to Nyquist: float64 [fft_size // 2 + 1, num_mels].

    As in Kaldi the triangles are linear in mel, not in Hz, and the Nyquist bin has no weight.
    """
    edges = np.linspace(_mel(low_hz), _mel(sample_rate / 2), num_mels + 2)
    bins = _mel(np.arange(fft_size // 2) * sample_rate / fft_size)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    return np.concatenate([weights, np.zeros((1, num_mels))])


@functools.lru_cache(maxsize=8)
def _dft_matrix(window_size: int, fft_size: int, window: str) -> np.ndarray:
    """All linear steps before the power spectrum as one float32 [window_size, 2 * (fft_size // 2 + 1)].

    Removing the frame's mean, pre-emphasis (the first sample is its own predecessor), the symmetric window and the
    real DFT are linear, so they fold into one product that the matrix unit runs.
    """
    n = window_size
    centre = np.eye(n) - 1.0 / n
    emphasis = np.eye(n) - _PREEMPHASIS * np.eye(n, k=-1)
    emphasis[0, 0] = 1.0 - _PREEMPHASIS
    taper = {"hann": np.hanning, "hamming": np.hamming}[window](n)
    angle = -2.0 * np.pi * np.outer(np.arange(n), np.arange(fft_size // 2 + 1)) / fft_size
    dft = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return (centre.T @ emphasis.T @ (taper[:, None] * dft)).astype(np.float32)


def num_frames(samples: int, window_size: int, hop: int) -> int:
    """Whole frames in `samples`: a partial frame at the end is dropped."""
    return 0 if samples < window_size else 1 + (samples - window_size) // hop


def log_mel(
    wave: jax.Array,
    *,
    sample_rate: int,
    num_mels: int,
    window_ms: float = 25.0,
    hop_ms: float = 10.0,
    window: str = "hann",
) -> jax.Array:
    """Kaldi's log-mel filterbank (no dither, no energy): wave [B, n] -> float32 [B, frames, num_mels].

    Integer PCM is scaled to [-1, 1) by 2^15. The log is natural, of max(power, 1.19e-7). The product runs at the
    highest matmul precision: with bfloat16 passes the quiet bins would drown.
    """
    if jnp.issubdtype(wave.dtype, jnp.integer):
        wave = wave.astype(jnp.float32) / 32768.0
    size, hop = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
    fft_size = 1 << (size - 1).bit_length()
    frames = num_frames(wave.shape[-1], size, hop)
    index = np.arange(frames)[:, None] * hop + np.arange(size)
    spectrum = jnp.matmul(
        wave[:, index], jnp.asarray(_dft_matrix(size, fft_size, window)), precision=jax.lax.Precision.HIGHEST
    )
    real, imaginary = jnp.split(spectrum, 2, axis=-1)
    banks = jnp.asarray(mel_filterbank(num_mels, fft_size, sample_rate), jnp.float32)
    power = jnp.matmul(real**2 + imaginary**2, banks, precision=jax.lax.Precision.HIGHEST)
    return jnp.log(jnp.maximum(power, _LOG_FLOOR))


def scale_pixels(pixels: jax.Array, mean=0.5, std=0.25) -> jax.Array:
    """Pixels 0..255 [.., C] to float32 (x / 255 - mean) / std; `mean` and `std` are numbers or one per channel."""
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    return (pixels.astype(jnp.float32) / 255.0 - mean) / std
