"""Labels per time step, for tasks that name what happens when (AVE)."""

import numpy as np

from mmr_jax.data.prepare.records import Example


def labels_by_step(example: Example, label: str, steps: int, classes: int) -> np.ndarray:
    """Bool [steps, classes]: which labels of the set `label` hold in the middle of each of `steps` equal parts.

    `example` is what `Split` gives; a label without times holds throughout. A row without any is background.
    """
    middles = (np.arange(steps) + 0.5) * example["duration"] / steps
    held = np.zeros((steps, classes), bool)
    for name, start, end in zip(*example["labels"][label], strict=True):
        held[(middles >= start) & (middles < end), name] = True
    return held
