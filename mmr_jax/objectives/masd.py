"""MASD, modality-augmented self-distillation (McKinzie et al. 2023, section 5.1, Eq. 8)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mmr_jax.models.model import cut
from mmr_jax.objectives.base import weighted_mean
from mmr_jax.objectives.microbatches import in_microbatches
from mmr_jax.objectives.supervised import Supervised


def masd_loss(
    teacher_logits: jax.Array,
    student_logits: jax.Array,
    multilabel: bool = False,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of the student against the teacher's probabilities; no gradient reaches the teacher.

    Logits [B, C] -> float32 []. Softmax: mean over examples of -sum_y p_teacher log p_student. `multilabel`: binary
    cross-entropy against sigmoid(teacher), mean over examples and classes. `weight` float [B] weighs the examples.
    The paper prints the sum without its minus sign; minimised as printed it would drive the two apart.
    """
    teacher = jax.lax.stop_gradient(teacher_logits.astype(jnp.float32))
    student = student_logits.astype(jnp.float32)
    if multilabel:
        losses = jnp.mean(jnp.logaddexp(0.0, student) - jax.nn.sigmoid(teacher) * student, axis=-1)
    else:
        losses = -jnp.sum(jax.nn.softmax(teacher) * jax.nn.log_softmax(student), axis=-1)
    return weighted_mean(losses, jnp.ones(losses.shape[0]) if weight is None else weight)


@dataclass(frozen=True)
class Masd(Supervised):
    """L_task(labelled | M_T) + weight * distillation on unlabelled data, teacher on M_T, student on all the others.

    Teacher and student are the same weights. An unlabelled example counts if it has some modality of M_T and some
    outside. With M_T = all there is no student: use `Supervised`.
    """

    multilabel: bool = False
    weight: float = 1.0
    temperature: float = 1.0
    sources = ("labelled", "unlabelled")

    def trains(self, path):
        return self.model.in_classification(path, self.model.names)

    def loss(self, params, extra, batches, rng):
        model = self.model.bind(params)
        task, metrics = self.task_loss(model, batches["labelled"], rng)
        distill, agreement = self.distillation(model, batches["unlabelled"], jax.random.fold_in(rng, 2))
        metrics |= {"distill_loss": distill, "agreement": agreement}
        return task + self.weight * distill, (metrics, extra)

    def distillation(self, model, batch, rng) -> tuple[jax.Array, jax.Array]:
        """L_self-dist of Eq. 8 and the share of examples on which teacher and student agree."""
        inputs, length, present = cut(batch, self.model.names)
        sides = (self.modalities, [m for m in self.model.names if m not in self.modalities])

        def classified(rng, inputs, length, present):
            parts = model.parts(inputs, length, rng)
            fused = [model.fuse({m: parts[m] for m in side}, {m: present[m] for m in side}) for side in sides]
            return [model.classify(x) / self.temperature for x in fused]

        teacher, student = in_microbatches(classified, self.microbatches, rng, inputs, length, present)
        taught, learns = (jnp.any(jnp.stack([present[m] for m in side]), axis=0) for side in sides)
        weight = jnp.where(taught & learns, batch["weight"], 0.0)
        agree = (jnp.argmax(teacher, -1) == jnp.argmax(student, -1)).astype(jnp.float32)
        return masd_loss(teacher, student, self.multilabel, weight), weighted_mean(agree, weight)
