"""Sound and pictures of the synthetic world, rendered one example at a time.

Rows are rendered singly, because a row's work fits the processor's cache and a batch's does not, and because
the result then cannot depend on the other rows of a batch. Noise is cut at random places from long banks.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmr_jax.errors import UserError
from mmr_jax.seeds import fold_seed

TEMPI = 4
TIMBRES = np.array(  # amplitude of each harmonic
    [
        [1.0, 0.15, 0.05, 0.02, 0.0, 0.0],
        [1.0, 0.9, 0.8, 0.7, 0.6, 0.5],
        [1.0, 0.0, 0.8, 0.0, 0.6, 0.0],
        [0.3, 1.0, 0.1, 0.9, 0.1, 0.6],
        [0.3, 0.2, 1.0, 0.2, 0.1, 0.8],
        [0.8, 1.0, 0.0, 0.0, 0.0, 0.8],
        [0.2, 0.2, 0.2, 1.0, 1.0, 0.2],
        [1.0, 0.0, 0.0, 0.0, 1.0, 1.0],
    ]
)
_TREMOLO_HZ = (3.5, 7.0, 14.0, 28.0)
_LOUDNESS = (0.35, 0.6, 1.0)
_SPEED = (0.01, 0.045, 0.09, 0.15)  # frame widths per frame
_RADIUS = (0.16, 0.22, 0.3)  # frame widths
_TABLE = 1024  # samples of one period
_BANK = 1 << 19
_TEXTURE = 256  # side of the bank of backgrounds, pixels


@dataclasses.dataclass(frozen=True)
class Factors:
    """What an example is about; all modalities see it."""

    label: int
    form: int
    tint: int
    tints: int  # how many tints there are
    tempo: int
    direction: int
    level: int


class AudioRenderer:
    """int16 waveforms `[samples]`: a gliding, trembling tone over coloured noise with a distractor tone."""

    def __init__(self, spec: Mapping[str, Any], config: Mapping[str, Any]):
        self._samples, self._rate = spec["samples"], spec["sample_rate"]
        self._noise, self._jitter = config["audio_noise"], config["audio_jitter"]
        self._banks = _noise_bank(fold_seed(config["seed"], "audio noise"), _BANK + self._samples)
        self._x = np.linspace(0, 1, self._samples, dtype=np.float32)
        self._bend = (self._x * self._x - self._x) / 2
        harmonics = np.arange(1, TIMBRES.shape[1] + 1)
        self._angles = 2 * np.pi * np.outer(harmonics, np.arange(_TABLE) / _TABLE)

    def __call__(self, rng: np.random.Generator, factors: Factors) -> tuple[np.ndarray, int]:
        u, g = rng.random(16), rng.standard_normal(4)
        seconds = self._samples / self._rate
        table = self._period(rng, factors)
        pitch = 160 * 2 ** (0.42 * (factors.form + 0.4 * self._jitter * g[0]))
        glide = (0.4, 0.0, -0.4)[factors.direction] + 0.04 * g[1]
        cycles = (self._x + np.float32(glide) * self._bend) * np.float32(pitch * seconds) + np.float32(u[0])
        wave = table[(cycles * _TABLE).astype(np.int32) & (_TABLE - 1)]
        wave *= self._envelope(_TREMOLO_HZ[factors.tempo] * seconds * (1 + 0.06 * g[2]), u[1:4])
        wave *= np.float32(0.3 * _LOUDNESS[factors.level] * (1 + 0.05 * g[3]))
        wave += self._background(u[4:12], seconds)
        np.clip(wave, -1, 1, out=wave)
        return np.rint(wave * np.float32(32767)).astype(np.int16), self._samples

    def _period(self, rng: np.random.Generator, factors: Factors) -> np.ndarray:
        """One period `[_TABLE]` of the tone, unit energy."""
        weights = TIMBRES[factors.tint] * np.exp(0.5 * self._jitter * rng.standard_normal(TIMBRES.shape[1]))
        weights /= np.sqrt((weights * weights).sum())
        phases = 2 * np.pi * rng.random(TIMBRES.shape[1])
        return (weights[:, None] * np.sin(self._angles + phases[:, None])).sum(0).astype(np.float32)

    def _envelope(self, tremolos: float, u: np.ndarray) -> np.ndarray:
        """Tremolo times a gate that opens and closes at random."""
        angle = self._x * np.float32(2 * np.pi * tremolos) + np.float32(2 * np.pi * u[0])
        envelope = np.sin(angle, out=angle)
        envelope *= np.float32(0.45)
        envelope += np.float32(0.55)
        start, stop = int(0.25 * u[1] * self._samples), int((0.8 + 0.2 * u[2]) * self._samples)
        envelope[:start] = 0
        envelope[stop:] = 0
        return envelope

    def _background(self, u: np.ndarray, seconds: float) -> np.ndarray:
        """Coloured noise and one distractor tone."""
        white, brown = (bank[int(v * _BANK) :][: self._samples] for bank, v in zip(self._banks, u, strict=False))
        gain = 0.15 * self._noise * (0.6 + 0.8 * u[2])
        noise = white * np.float32(gain * u[3]) + brown * np.float32(gain * (1 - u[3]))
        hertz = 120 * 2 ** (4.5 * u[4])
        tone = np.sin(self._x * np.float32(2 * np.pi * hertz * seconds) + np.float32(2 * np.pi * u[5]))
        return noise + tone * np.float32(0.2 * self._noise * u[6])


class FrameRenderer:
    """uint8 video or image with frames `[F, H, W, 3]`, or image `[H, W, 3]`: a moving shape on clutter."""

    def __init__(self, name: str, spec: Mapping[str, Any], config: Mapping[str, Any]):
        if spec["channels"] != 3:
            raise UserError(f"modality {name!r} has {spec['channels']} channels; the synthetic world makes 3")
        self._frames, self._image = spec.get("frames", 0) or 1, spec["kind"] == "image"
        self._still = self._image and not spec.get("frames", 0)
        self._height, self._width = spec["height"], spec["width"]
        self._shape = (self._frames, self._height, self._width, 3)
        self._noise, self._jitter = config["video_noise"], config["video_jitter"]
        self._pixels, _ = _noise_bank(fold_seed(config["seed"], "pixels"), _BANK + int(np.prod(self._shape)))
        side = max(_TEXTURE, 2 * self._height, 2 * self._width)
        self._textures = _texture_bank(fold_seed(config["seed"], "textures"), side)
        self._y = ((np.arange(self._height) + 0.5) / self._height).astype(np.float32)[None, :, None]
        self._x = ((np.arange(self._width) + 0.5) / self._width).astype(np.float32)[None, None, :]

    def __call__(self, rng: np.random.Generator, factors: Factors) -> tuple[np.ndarray, int]:
        u, g = rng.random(16), rng.standard_normal(8)
        frames = np.broadcast_to(self._background(rng, u[:2]), self._shape).copy()
        hue = (factors.tint + 0.3 * self._jitter * g[0]) / max(factors.tints, 2)
        opacity = 1 / (1 + 0.15 * self._noise)
        mask = self._mask(factors, u[2:6], g[1:6])[..., None] * np.float32(opacity)
        frames += mask * (_colour(hue) - frames)
        frames *= np.float32(1 + 0.25 * self._noise * (u[6] - 0.5))
        start = int(u[7] * _BANK)
        noise = self._pixels[start : start + frames.size].reshape(self._shape)
        frames += noise * np.float32(0.05 * self._noise)
        np.clip(frames, 0, 1, out=frames)
        pixels = np.rint(frames * np.float32(255)).astype(np.uint8)
        return pixels[0] if self._still else pixels, 1 if self._image else self._frames

    def _background(self, rng: np.random.Generator, u: np.ndarray) -> np.ndarray:
        """Textured ground `[1, H, W, 3]` with two discs of random colour on it."""
        top, left = (u * (len(self._textures) - max(self._height, self._width))).astype(int)
        ground = self._textures[top : top + self._height, left : left + self._width]
        ground = ground * np.float32(0.1 * self._noise) + (0.15 + 0.4 * rng.random(3)).astype(np.float32)
        for y, x, radius, hue in rng.random((2, 4)).tolist():
            square = (self._y[0] - np.float32(y)) ** 2 + (self._x[0] - np.float32(x)) ** 2
            disc = square < np.float32((0.05 + 0.08 * radius) ** 2)
            ground[disc] += np.float32(min(0.4 * self._noise, 1.0)) * (_colour(hue) - ground[disc])
        return ground[None]

    def _mask(self, factors: Factors, u: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Coverage float32 `[F, H, W]` of the moving shape; what leaves on one side returns on the other."""
        radius = _RADIUS[factors.level] * (1 + 0.06 * g[0])
        heading = np.pi / 2 * (1, 0, -1)[factors.direction] + 0.25 * g[1]
        travel = _SPEED[factors.tempo] * (1 + 0.1 * g[2]) * (np.arange(self._frames) - (self._frames - 1) / 2)
        turn = 2 * np.pi * (u[2] - 0.5) * min(0.15 * self._jitter, 1.0)
        centre = 0.5 + (u[:2] - 0.5) * min(0.4 * self._jitter, 1.0)
        x = _wrap(self._x - (centre[0] + np.cos(heading) * travel).astype(np.float32)[:, None, None])
        y = _wrap(self._y - (centre[1] - np.sin(heading) * travel).astype(np.float32)[:, None, None])
        cos, sin = np.float32(np.cos(turn) / radius), np.float32(np.sin(turn) / radius)
        stretch = np.float32(np.exp(0.12 * self._jitter * g[3]))
        distance = _outline(factors.form, (x * cos + y * sin) * stretch, (y * cos - x * sin) / stretch)
        return np.clip(np.float32(0.5) - distance * np.float32(radius * self._width), 0, 1)


def _outline(form: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (about; negative inside) to a shape of radius about 1."""
    if form == 0:  # disc
        return np.sqrt(x * x + y * y) - 0.9
    if form == 1:  # square
        return np.maximum(np.abs(x), np.abs(y)) - 0.8
    if form == 2:  # triangle
        return np.maximum(-y, 0.866 * np.abs(x) + 0.5 * y) - 0.55
    if form == 3:  # cross
        a, b = np.abs(x), np.abs(y)
        return np.minimum(np.maximum(a - 1, b - 0.3), np.maximum(a - 0.3, b - 1))
    if form == 4:  # ring
        return np.abs(np.sqrt(x * x + y * y) - 0.8) - 0.22
    return np.maximum(np.abs(x) - 1.2, np.abs(y) - 0.35)  # bar


def _colour(hue: float) -> np.ndarray:
    """RGB float32 `[3]` in 0..1 of a saturated colour; hue in turns."""
    return (0.5 + 0.45 * np.cos(2 * np.pi * (hue - np.arange(3) / 3))).astype(np.float32)


def _wrap(offset: np.ndarray) -> np.ndarray:
    """Offsets on a circle of length 1, as the nearest of their images: -0.5..0.5."""
    return offset - np.rint(offset)


@functools.lru_cache(maxsize=4)
def _noise_bank(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """White and brown noise float32 `[size]`, each of unit variance."""
    white = np.random.Generator(np.random.Philox(key=seed)).standard_normal(size)
    spectrum = np.fft.rfft(white)
    spectrum /= np.maximum(np.arange(len(spectrum)), len(spectrum) // 100)  # flat below 1 % of the band
    brown = np.fft.irfft(spectrum, size)
    return white.astype(np.float32), (brown / brown.std()).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _texture_bank(seed: int, side: int) -> np.ndarray:
    """Smooth colour texture float32 `[side, side, 3]` of unit variance, with details of about 8 pixels."""
    field = np.random.Generator(np.random.Philox(key=seed)).standard_normal((side, side, 3))
    frequency = np.fft.fftfreq(side)
    low_pass = np.exp(-((frequency[:, None] ** 2 + frequency[None, :] ** 2) * (8.0**2)))
    smooth = np.fft.ifft2(np.fft.fft2(field, axes=(0, 1)) * low_pass[..., None], axes=(0, 1)).real
    return (smooth / smooth.std()).astype(np.float32)
