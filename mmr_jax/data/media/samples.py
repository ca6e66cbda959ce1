"""Samples as numbers: full scale at 1, several channels as one."""

from typing import Any

import numpy as np

_CANCELLED = 0.1  # of the power that a mean has which holds the loudest channel alone


def floats(frame: Any, notes: list[str]) -> np.ndarray:
    """float32 [n, channels] of a PyAV audio frame of any format; grows `notes`."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels))
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return (values / float(1 << (8 * values.dtype.itemsize - 1))).astype(np.float32)
    if not np.isfinite(values).all():
        notes.append("samples that are no numbers are silent")
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    return values.astype(np.float32)


def mono(sound: np.ndarray, notes: list[str]) -> np.ndarray:
    """float32 [n] from [n, channels]: the mean, or the loudest channel where the others cancel it; grows `notes`."""
    mean, channels = sound.mean(1), sound.shape[1]
    power = sound.var(0)
    if channels > 1 and mean.var() < _CANCELLED * power.max() / channels**2:
        notes.append("channels cancel, the loudest one is used")
        return sound[:, power.argmax()]
    return mean
