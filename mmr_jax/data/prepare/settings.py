"""How clips are stored: the settings that every record of a prepared data set shares."""

import dataclasses

from mmr_jax.errors import UserError

_RANGES = {"frames": (1, 10_000), "short_side": (0, 8192), "rate": (1000, 384_000), "quality": (1, 100)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Frames per clip, their short side in pixels (0: as it is) and JPEG quality; the audio's samples per second."""

    frames: int = 8
    short_side: int = 256
    rate: int = 16000
    quality: int = 90

    def __post_init__(self):
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"--{name}={getattr(self, name)} must be between {low} and {high}")
