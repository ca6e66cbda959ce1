"""Mixup (arXiv 1710.09412) and label smoothing, in the arithmetic of CAV-MAE's fine-tuning (arXiv 2210.07839)."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

_PCM = 32768.0


@dataclass(frozen=True)
class Mixup:
    """An example is mixed with probability `rate`, by a share lambda ~ Beta(alpha, alpha) of its own.

    The partner is another example of the batch, by a random permutation per step; the published code draws it from the
    whole data set. `smoothing` (eps) also acts on examples that are not mixed.
    """

    rate: float = 0.0
    alpha: float = 10.0
    smoothing: float = 0.0

    def draw(self, rng: jax.Array, weight: jax.Array, present: Mapping) -> tuple[jax.Array, jax.Array]:
        """(partner int32 [B], share of the first float32 [B]); the share is 1 where an example is not mixed.

        Padding (weight 0) is nobody's partner, nor is an example that has no modality of the first.
        """
        order_key, share_key, which_key = jax.random.split(rng, 3)
        size = weight.shape[0]
        partner = jax.random.permutation(order_key, size)
        common = jnp.any(jnp.stack([p & p[partner] for p in present.values()]), axis=0)
        mixed = jax.random.bernoulli(which_key, self.rate, (size,)) & (weight[partner] > 0) & common
        share = jax.random.beta(share_key, self.alpha, self.alpha, (size,))
        return partner, jnp.where(mixed, share, 1.0)


def mix_inputs(tokenizers: Mapping, inputs: Mapping, length: Mapping, partner, share, rng: jax.Array) -> dict:
    """Raw inputs of some modalities, mixed: waves float32 in [-1, 1), pixels float32 0..255, features; text as it is.

    Mixing comes before the front end, which centres and normalises. A partner's input ends where its `length` does
    (sound: silence); a modality that the partner lacks (length 0) stays the first's. Of an image with several frames
    each side draws its own.
    """
    keys = jax.random.split(rng, len(inputs))
    return {
        m: _mix(tokenizers[m], inputs[m], length[m], partner, share, key)
        for m, key in zip(sorted(inputs), keys, strict=True)
    }


def _mix(tokenizer, raw, length, partner, share, rng) -> jax.Array:
    if tokenizer.cfg.kind == "text":
        return raw
    valid = tokenizer.valid(raw, length).reshape(raw.shape[0], -1, *[1] * (raw.ndim - 2))
    first = second = jnp.where(valid, raw, 0)
    if tokenizer.cfg.kind == "image" and raw.ndim == 5:
        frames = jax.random.randint(rng, (2, raw.shape[0]), 0, raw.shape[1])
        first, second = (raw[jnp.arange(raw.shape[0]), frame] for frame in frames)
    share = jnp.where(length[partner] > 0, share, 1.0).reshape(-1, *[1] * (first.ndim - 1))
    mixed = share * first.astype(jnp.float32) + (1 - share) * second[partner].astype(jnp.float32)
    return mixed / _PCM if raw.dtype == jnp.int16 else mixed


def soft_labels(labels: jax.Array, classes: int, partner, share, smoothing: float) -> jax.Array:
    """Labels int [B] or float [B, C] of 0 and 1 -> soft float32 [B, C], with eps = `smoothing`.

    Mixed (share < 1): eps / C + (1 - eps) (share y + (1 - share) y of the partner). Not mixed: 1 - eps for the
    positives, eps / C for the others. Both as published; they do not sum to one.
    """
    hot = jax.nn.one_hot(labels, classes) if labels.ndim == 1 else labels
    floor, share = smoothing / classes, share[:, None]
    mixed = floor + (1 - smoothing) * (share * hot + (1 - share) * hot[partner])
    return jnp.where(share < 1, mixed, hot * (1 - smoothing) + (1 - hot) * floor)
