"""Balanced sampling: rare classes are drawn more often (PSLA, arXiv 2102.01243; CAV-MAE)."""

from collections.abc import Sequence

import numpy as np

from mmr_jax.data.source import Batch, Record, Source, labels_of, take
from mmr_jax.errors import UserError
from mmr_jax.seeds import fold_seed


def uniform_at(seed: int, positions: np.ndarray) -> np.ndarray:
    """Numbers float64 in [0, 1) at `positions` (int) of a random sequence, each a pure function of (seed, position)."""
    start = fold_seed(seed, "high") << 32 | fold_seed(seed, "low")
    return (splitmix64(start, positions) >> np.uint64(11)) * 2.0**-53


def splitmix64(start: int, positions: np.ndarray) -> np.ndarray:
    """Outputs uint64 at `positions` (0 is the first) of the generator splitmix64 (Steele et al. 2014).

    Random access: its state after n steps is its start plus n strides.
    """
    steps = np.asarray(positions, np.uint64) + np.uint64(1)
    z = np.uint64(start) + steps * np.uint64(0x9E3779B97F4A7C15)  # arrays wrap around, as they should
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sample_weights(labels: np.ndarray) -> np.ndarray:
    """float64 [N]: over an example's labels, the sum of 1000 / (count + 0.01).

    labels int [N], or [N, C] of 0 and 1; `count` is how many examples have the label. Without a label it is 0.
    """
    if labels.ndim == 1:
        return 1000.0 / (np.bincount(labels) + 0.01)[labels]
    return labels.astype(np.float64) @ (1000.0 / (labels.sum(0, dtype=np.float64) + 0.01))


class Balanced:
    """`source`, of which training draws with replacement, in proportion to `sample_weights`."""

    def __init__(self, source: Source):
        self._source = source
        self._cumulative = np.cumsum(sample_weights(labels_of(source)[0]))
        if not self._cumulative[-1] > 0:
            raise UserError("finetune.balanced: no example of the labelled set has a label")

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        return self._source[index]

    def take(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return take(self._source, indices)

    def order_at(self, seed: int, positions: np.ndarray) -> np.ndarray:
        """Record indices int64 at `positions` of the endless sequence of draws: the inverse of the distribution."""
        return np.searchsorted(self._cumulative, uniform_at(seed, positions) * self._cumulative[-1], side="right")
