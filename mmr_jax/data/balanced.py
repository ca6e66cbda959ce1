"""Balanced sampling: rare classes are drawn more often (PSLA, arXiv 2102.01243; CAV-MAE)."""

import numpy as np

from mmr_jax.data.draws import uniform_at
from mmr_jax.data.source import Source, View, labels_of
from mmr_jax.errors import UserError


def sample_weights(labels: np.ndarray) -> np.ndarray:
    """float64 [N]: over an example's labels, the sum of 1000 / (count + 0.01).

    labels int [N], or [N, C] of 0 and 1; `count` is how many examples have the label. Without a label it is 0.
    """
    if labels.ndim == 1:
        return 1000.0 / (np.bincount(labels) + 0.01)[labels]
    return labels.astype(np.float64) @ (1000.0 / (labels.sum(0, dtype=np.float64) + 0.01))


class Balanced(View):
    """`source`, of which training draws with replacement, in proportion to `sample_weights`."""

    def __init__(self, source: Source):
        super().__init__(source)
        self._cumulative = np.cumsum(sample_weights(labels_of(source)[0]))
        if not self._cumulative[-1] > 0:
            raise UserError("finetune.balanced: no example of the labelled set has a label")

    def order_at(self, seed: int, positions: np.ndarray) -> np.ndarray:
        """Record indices int64 at `positions` of the endless sequence of draws: the inverse of the distribution."""
        return np.searchsorted(self._cumulative, uniform_at(seed, positions) * self._cumulative[-1], side="right")
