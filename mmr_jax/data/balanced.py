"""Balanced sampling: rare classes are drawn more often (PSLA, arXiv 2102.01243; CAV-MAE)."""

import numpy as np

from mmr_jax.data.draws import uniform_at
from mmr_jax.data.source import Source, View, classes_of
from mmr_jax.errors import UserError


def sample_weights(classes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """float64 [N]: over an example's labels, the sum of 1000 / (count + 0.01).

    classes int [K] and offsets [N + 1] as `classes_of` gives them; `count` is how many examples have the label, and a
    label that an example has twice counts once. Without a label the weight is 0.
    """
    size, most = len(offsets) - 1, int(classes.max(initial=0)) + 1
    owners = np.repeat(np.arange(size), np.diff(offsets))
    owners, classes = np.divmod(np.unique(owners * most + classes), most)
    return np.bincount(owners, (1000.0 / (np.bincount(classes) + 0.01))[classes], minlength=size)


class Balanced(View):
    """`source`, of which training draws with replacement, in proportion to `sample_weights`."""

    def __init__(self, source: Source):
        super().__init__(source)
        self._cumulative = np.cumsum(sample_weights(*classes_of(source)))
        if not self._cumulative[-1] > 0:
            raise UserError("finetune.balanced: no example of the labelled set has a label")

    def order_at(self, seed: int, positions: np.ndarray) -> np.ndarray:
        """Record indices int64 at `positions` of the endless sequence of draws: the inverse of the distribution."""
        return np.searchsorted(self._cumulative, uniform_at(seed, positions) * self._cumulative[-1], side="right")
