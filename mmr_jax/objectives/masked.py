"""Masked pretraining: Audio-MAE, Visual-MAE, AV-MAE, CAV and CAV-MAE (Gong et al. 2023), for any modalities.

One objective; the settings make the model: a reconstruction weight of 0 is CAV, a contrastive weight of 0 is AV-MAE,
`together` on a trunk that is shared from the first block is vanilla AV-MAE.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmr_jax.models.encoder_config import JOINT
from mmr_jax.models.functional import Functional
from mmr_jax.models.model import Model, cut
from mmr_jax.objectives.base import Objective, weighted_mean
from mmr_jax.objectives.contrastive import pair_accuracy, pairwise_loss
from mmr_jax.objectives.masking import Hidden, Places, hide, masking_noise, places
from mmr_jax.objectives.microbatches import in_microbatches

DECODER = "decoder"
_TARGET_EPS = 1e-6


def normalized(patches: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Patches float [.., dim] with mean 0 and unbiased deviation 1 each (MAE's norm_pix), the means, the deviations."""
    mean = jnp.mean(patches, axis=-1, keepdims=True)
    deviation = jnp.sqrt(jnp.var(patches, axis=-1, keepdims=True, ddof=1) + _TARGET_EPS)
    return (patches - mean) / deviation, mean, deviation


def reconstruction_error(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Error per patch, float32 [B, T]: mean squared error against patches float [B, T, dim], or the cross-entropy of
    logits float [B, T, V] against token ids int [B, T]."""
    if jnp.issubdtype(target.dtype, jnp.integer):
        return -jnp.take_along_axis(jax.nn.log_softmax(predicted), target[..., None], axis=-1)[..., 0]
    return jnp.mean(jnp.square(predicted - target), axis=-1)


class Made(NamedTuple):
    """What a forward pass computes: latents [B, K, D] that the decoder reads, and per modality the pooled own stream
    [B, D], predictions float32 [B, T, dim] and `Places`. What a weight of 0 leaves out is None or empty."""

    latent: jax.Array | None
    pooled: dict[str, jax.Array]
    predicted: dict[str, jax.Array]
    places: dict[str, Places]


@dataclass(frozen=True)
class Masked(Objective):
    """Reconstruction of hidden patches from visible ones, and contrast between the visible parts of the modalities.

    `masking` holds (modality, ratio, mode) in sorted order; `together` masks the concatenation by the first ratio.
    The loss is reconstruction_weight * sum over modalities of the mean error of their hidden patches, plus
    contrastive_weight * InfoNCE (or the sigmoid loss) of the pooled single-modality streams (CAV-MAE, Eqs. 7 to 9).
    """

    model: Model
    decoder: Functional
    masking: tuple[tuple[str, float, str], ...]
    reconstruction_weight: float = 1.0
    contrastive_weight: float = 0.0
    temperature: float = 0.05
    direction: str = "both"
    norm_targets: bool = True
    together: bool = False
    loss_name: str = "info_nce"
    contrast: str = "plain"
    bias: float = 0.0
    microbatches: int = 1
    sources = ("unlabelled",)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is masked, sorted."""
        return tuple(m for m, _, _ in self.masking)

    def init(self, key):
        params = self.model.init(key)
        if self.reconstruction_weight:
            params[DECODER] = self.decoder.init(jax.random.fold_in(key, 1))
        return params, {}

    def trains(self, path):
        if path.startswith(DECODER + "/"):
            return not path.endswith("/position")
        if path.startswith("projections/") and not self.contrastive_weight:
            return False
        shared = self.model.has_shared
        single = bool(self.contrastive_weight) or not shared
        return self.model.in_pretraining(path, self.modalities, single, shared and bool(self.reconstruction_weight))

    def loss(self, params, extra, batches, rng):
        loss, metrics, _ = self.forward(params, *self.prepare(params, batches["unlabelled"], rng))
        return loss, (metrics, extra)

    def prepare(self, params: Mapping, batch: Mapping, rng: jax.Array, augment: bool = True) -> tuple:
        """(patches, length, seen, noise) of a batch: what `forward` takes."""
        inputs, length, present = cut(batch, self.modalities)
        encoder = self._bind(params).encoder
        patches = encoder.patches(inputs, length, rng if augment else None)
        seen = {m: p & (batch["weight"] > 0) for m, p in present.items()}
        keys = jax.random.split(jax.random.fold_in(rng, len(self.masking)), len(self.masking))
        noise = {
            m: masking_noise(key, mode, encoder.tokenizers[m].grid, ratio, batch["weight"].shape[0])
            for key, (m, ratio, mode) in zip(keys, self.masking, strict=True)
        }
        return patches, length, seen, noise

    def forward(
        self, params: Mapping, patches: Mapping, length: Mapping, seen: Mapping, noise: Mapping
    ) -> tuple[jax.Array, dict[str, jax.Array], Made]:
        """(loss float32 [], metrics, what was made on the way).

        Per modality: patches float [B, T, dim] or ids int [B, T], length int32 [B], seen bool [B] (the example counts),
        noise float [B, T]: the patches with the smallest stay visible.
        """

        def one(_, *part):
            return self._made(params, *part)

        made = in_microbatches(one, self.microbatches, None, patches, length, noise)
        loss, metrics = jnp.float32(0.0), {}
        if self.contrastive_weight:
            contrast, metrics = self._contrast(made.pooled, seen)
            loss += self.contrastive_weight * contrast
        if self.reconstruction_weight:
            shown = made.predicted, patches, made.places, seen
            errors = {m: self._error(*(part[m] for part in shown)) for m in self.modalities}
            loss += self.reconstruction_weight * sum(errors.values())
            metrics |= {f"reconstruction_{m}": error for m, error in errors.items()}
        return loss, metrics, made

    def _made(self, params, patches, length, noise) -> Made:
        module = self._bind(params)
        sequences = self._hide(module.encoder, patches, length, noise)
        where = self._places(module.encoder, sequences)
        latent, pooled, predicted = None, {}, {}
        if self.contrastive_weight:
            pooled = {m: module.pooled(m, h.tokens, h.mask) for (m,), h in sequences.items()}
        if self.reconstruction_weight:
            latent = self._latent(module.encoder, sequences)
            predicted = self.decoder.bind(params[DECODER])(latent, where)
        return Made(latent, pooled, predicted, where)

    def _bind(self, params: Mapping):
        return self.model.bind({k: v for k, v in params.items() if k != DECODER})

    @property
    def _skip(self) -> int:
        return int(self.model.encoder.tower.class_token)

    def _hide(self, encoder, patches, length, noise) -> dict[tuple[str, ...], Hidden]:
        """The sequences that are masked, after the owned blocks on what is visible: {names: Hidden}."""
        embedded = encoder.embed(patches, length)
        if self.together:
            names, ratio = self.modalities, self.masking[0][1]
            tokens, mask = (jnp.concatenate([embedded[m][i] for m in names], axis=1) for i in (0, 1))
            return {names: hide(tokens, mask, 0, jnp.concatenate([noise[m] for m in names], axis=1), ratio)}
        hidden = {m: hide(*embedded[m], self._skip, noise[m], ratio) for m, ratio, _ in self.masking}
        return {(m,): h._replace(tokens=encoder.own(m, h.tokens, h.mask)) for m, h in hidden.items()}

    def _places(self, encoder, sequences: Mapping) -> dict[str, Places]:
        found, offset = {}, 0
        for names, hidden in sequences.items():
            ends = np.cumsum([encoder.tokenizers[m].count + self._skip for m in names])[:-1]
            split = [jnp.split(part, ends, axis=1) for part in places(hidden, self._skip, offset)]
            found |= {m: Places(*parts) for m, *parts in zip(names, *split, strict=True)}
            offset += hidden.tokens.shape[1]
        return found

    def _latent(self, encoder, sequences: Mapping) -> jax.Array:
        """The joint stream over all visible tokens; without shared blocks the single streams side by side."""
        if not self.model.has_shared:
            return jnp.concatenate(
                [encoder.stream(m, h.tokens, h.mask).tokens for (m,), h in sequences.items()], axis=1
            )
        tokens, mask = (jnp.concatenate([h[i] for h in sequences.values()], axis=1) for i in (0, 1))
        return encoder.stream(JOINT, tokens, mask).tokens

    def _contrast(self, pooled: Mapping, seen: Mapping) -> tuple[jax.Array, dict[str, jax.Array]]:
        given = (pooled, seen, self.temperature, self.direction, self.bias, self.contrast)
        loss, pairs = pairwise_loss(self.loss_name, *given)
        metrics = {"contrastive": loss, **pairs}
        if self.contrast != "plain":  # the accuracy takes the whole matrix
            return loss, metrics
        for a, b in itertools.combinations(sorted(pooled), 2):
            query, candidate = (b, a) if self.direction == "backward" else (a, b)
            metrics[f"accuracy_{a}-{b}"] = pair_accuracy(pooled[query], pooled[candidate], seen[a] & seen[b])
        return loss, metrics

    def _error(self, predicted, patches, where: Places, seen) -> jax.Array:
        """Mean error of a modality's hidden patches over the whole batch."""
        ids = jnp.issubdtype(patches.dtype, jnp.integer)
        target = normalized(patches)[0] if self.norm_targets and not ids else patches
        hidden = (where.exists & ~where.visible)[:, self._skip :] & seen[:, None]
        return weighted_mean(reconstruction_error(predicted, target), hidden.astype(jnp.float32))
