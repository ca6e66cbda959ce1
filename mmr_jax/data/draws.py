"""Random numbers and orders by position: pure functions of (seed, position), so that nothing is kept to resume."""

import numpy as np
from grain.experimental import index_shuffle

from mmr_jax.seeds import fold_seed

_ROUNDS = 4  # of the block cipher that permutes an epoch; grain's own choice


def splitmix64(start: int | np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Outputs uint64 at `positions` (0 is the first) of the generator splitmix64 (Steele et al. 2014).

    Random access: its state after n steps is its start plus n strides.
    """
    steps = np.asarray(positions, np.uint64) + np.uint64(1)
    z = np.asarray(start, np.uint64) + steps * np.uint64(0x9E3779B97F4A7C15)  # arrays wrap around, as they should
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draws_at(seed: int, positions: np.ndarray) -> np.ndarray:
    """uint64 at `positions` (int) of the random sequence of `seed`."""
    return splitmix64(fold_seed(seed, "high") << 32 | fold_seed(seed, "low"), positions)


def unit(draws: np.ndarray) -> np.ndarray:
    """Draws uint64 to numbers float64 in [0, 1)."""
    return (draws >> np.uint64(11)) * 2.0**-53


def uniform_at(seed: int, positions: np.ndarray) -> np.ndarray:
    """Numbers float64 in [0, 1) at `positions` (int) of the random sequence of `seed`."""
    return unit(draws_at(seed, positions))


def order_at(size: int, seed: int, positions: np.ndarray) -> np.ndarray:
    """Record indices int64 at `positions` of the endless sequence that reshuffles `size` records every epoch.

    Random access: nothing is stored, so a source may be as long as 2**31.
    """
    epochs, offsets = np.divmod(np.asarray(positions, np.int64), size)
    seeds = {int(epoch): fold_seed(seed, "epoch", int(epoch)) for epoch in np.unique(epochs)}
    pairs = zip(epochs.tolist(), offsets.tolist(), strict=True)
    order = [index_shuffle(o, max_index=size - 1, seed=seeds[e], rounds=_ROUNDS) for e, o in pairs]
    return np.array(order, np.int64)
