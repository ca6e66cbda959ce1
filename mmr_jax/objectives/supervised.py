"""Supervised training on the modalities M_T (Eq. 2): softmax or sigmoid cross-entropy."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from mmr_jax.models.model import Model, cut
from mmr_jax.objectives.base import Objective, weighted_mean
from mmr_jax.objectives.microbatches import in_microbatches
from mmr_jax.objectives.mixup import Mixup, mix_inputs, soft_labels


def classification_loss(logits: jax.Array, labels: jax.Array, multilabel: bool = True) -> jax.Array:
    """Per-example cross-entropy float32 [B].

    labels int [B]: softmax. labels float [B, C]: `multilabel` is sigmoid, mean over the classes; else softmax against
    soft labels (which need not sum to one).
    """
    logits = logits.astype(jnp.float32)
    if labels.ndim == 1:
        return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    if not multilabel:
        return -jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)
    return jnp.mean(jnp.logaddexp(0.0, logits) - labels * logits, axis=-1)


def accuracy(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Top-1 accuracy; for multi-label targets the share of examples whose top class is among the positives."""
    top = jnp.argmax(logits, axis=-1)
    hit = top == labels if labels.ndim == 1 else jnp.take_along_axis(labels, top[:, None], axis=-1)[:, 0] > 0
    return weighted_mean(hit.astype(jnp.float32), weight)


@dataclass(frozen=True)
class Supervised(Objective):
    """Task loss on M_T = `modalities`. What M_T does not need is neither computed nor changed.

    `mixup` changes inputs and labels of the labelled batch; accuracies are against the labels as they were.
    """

    model: Model
    modalities: tuple[str, ...]
    mixup: Mixup = field(default=Mixup(), kw_only=True)
    microbatches: int = field(default=1, kw_only=True)
    sources = ("labelled",)

    def init(self, key):
        return self.model.init(key), {}

    def trains(self, path):
        return self.model.in_classification(path, self.modalities)

    def select(self, present: dict, rng: jax.Array) -> dict:
        """Which modalities of each example the model sees, {m: bool [B]}."""
        return present

    def loss(self, params, extra, batches, rng):
        loss, metrics = self.task_loss(self.model.bind(params), batches["labelled"], rng)
        return loss, (metrics, extra)

    def task_loss(self, model, batch, rng) -> tuple[jax.Array, dict]:
        """L_task of Eq. 2 and its metrics; examples without any modality of M_T have no part in it."""
        inputs, length, present = cut(batch, self.modalities)
        inputs, labels = self.soften(model, batch, inputs, length, jax.random.fold_in(rng, 3))
        select = self.select(present, jax.random.fold_in(rng, 1))

        def classified(rng, inputs, length, select):
            return model.classify(model.fuse(model.parts(inputs, length, rng), select))

        logits = in_microbatches(classified, self.microbatches, rng, inputs, length, select)
        seen = jnp.any(jnp.stack(list(select.values())), axis=0)
        weight = jnp.where(seen, batch["weight"], 0.0)
        loss = weighted_mean(classification_loss(logits, labels, multilabel=batch["label"].ndim == 2), weight)
        return loss, {"task_loss": loss, "accuracy": accuracy(logits, batch["label"], weight)}

    def soften(self, model, batch, inputs: dict, length: dict, rng: jax.Array) -> tuple[dict, jax.Array]:
        """(inputs, labels) after mixup and label smoothing; without either they are what they were."""
        mixup, labels = self.mixup, batch["label"]
        if not (mixup.rate or mixup.smoothing):
            return inputs, labels
        partner, share = jnp.arange(len(labels)), jnp.ones(len(labels))
        if mixup.rate:
            partner, share = mixup.draw(rng, batch["weight"], {m: length[m] > 0 for m in inputs})
            key = jax.random.fold_in(rng, 1)
            inputs = mix_inputs(model.encoder.tokenizers, inputs, length, partner, share, key)
        return inputs, soft_labels(labels, self.model.num_classes, partner, share, mixup.smoothing)
