import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmr_jax import tree
from mmr_jax.models.model import cut
from mmr_jax.objectives import Masd, Supervised, masd_loss

PRESENT = {"audio": [1, 1, 1, 0, 1, 0], "image": [1, 0, 0, 1, 1, 0], "text": [1, 1, 0, 1, 0, 1]}


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_agrees_with_the_published_numbers(reference, form):
    file = np.load(reference / "masd.npz")
    teacher, student = file[f"{form}/teacher"], file[f"{form}/student"]
    multilabel = form == "sigmoid"
    loss, (to_teacher, to_student) = jax.value_and_grad(masd_loss, argnums=(0, 1))(teacher, student, multilabel)
    toy.assert_close(loss, file[f"{form}/loss"])
    toy.assert_close(to_student, file[f"{form}/grad_student"])
    assert not np.asarray(to_teacher).any()
    one_by_one = [masd_loss(teacher, student, multilabel, weight) for weight in np.eye(len(teacher), dtype=np.float32)]
    toy.assert_close(np.array(one_by_one), file[f"{form}/per_example"])


@pytest.mark.parametrize("multilabel", [False, True])
def test_large_logits_stay_finite(multilabel):
    teacher = jnp.array([[300.0, -300.0, 0.0], [-1e4, 1e4, 0.0]])
    loss, grads = jax.value_and_grad(lambda s: masd_loss(teacher, s, multilabel))(-teacher)
    per_row = [np.mean([300, 300, np.log(2)]), np.mean([1e4, 1e4, np.log(2)])] if multilabel else [600, 2e4]
    np.testing.assert_allclose(loss, np.mean(per_row), rtol=1e-5)
    assert np.isfinite(grads).all()


def test_weight_zero_examples_do_not_count():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 6, 4)).astype(np.float32)
    weight = jnp.array([1.0, 0, 1, 1, 0, 1])
    kept = np.asarray(weight) > 0
    np.testing.assert_allclose(
        masd_loss(teacher, student, weight=weight), masd_loss(teacher[kept], student[kept]), rtol=1e-6
    )
    assert masd_loss(teacher, student, weight=jnp.zeros(6)) == 0


def logits(model, params, batch, names):
    """Logits of one example at a time, from only those of its modalities that are in `names`."""
    module, rows = model.bind(params), []
    inputs, length, present = cut(batch, names)
    parts = module.parts(inputs, length)
    for i in range(len(batch["id"])):
        seen = [m for m in names if present[m][i]]
        fused = np.mean([np.asarray(parts[m][i]) for m in seen], axis=0) if seen else np.zeros(model.dim)
        rows.append(fused @ params["head"]["kernel"] + params["head"]["bias"])
    return np.array(rows, np.float64)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize("multilabel", [False, True])
def test_equals_the_formula_written_by_hand(multilabel):
    model = toy.model()
    params = toy.parameters(model)
    labelled = toy.batch(seed=1, present=PRESENT, multilabel=multilabel)
    unlabelled = toy.batch(seed=2, present=PRESENT)
    unlabelled["weight"][4] = 0
    objective = Masd(model, ("audio",), multilabel, weight=0.5, temperature=2.0)
    batches = {"labelled": labelled, "unlabelled": unlabelled}
    loss, (metrics, _) = jax.jit(objective.loss)(params, {}, batches, jax.random.key(0))

    task = logits(model, params, labelled, ["audio"])
    seen = np.array(PRESENT["audio"], bool)
    if multilabel:
        losses = (np.logaddexp(0, task) - labelled["label"] * task).mean(-1)
    else:
        losses = -log_softmax(task)[np.arange(6), labelled["label"]]
    task_loss = losses[seen].mean()

    teacher = logits(model, params, unlabelled, ["audio"]) / 2
    student = logits(model, params, unlabelled, ["image", "text"]) / 2
    rows = [0, 1]  # audio, and image or text; the fifth has no weight
    if multilabel:
        cross = np.logaddexp(0, student) - student / (1 + np.exp(-teacher))
        distill = cross[rows].mean()
    else:
        distill = -(np.exp(log_softmax(teacher)) * log_softmax(student)).sum(-1)[rows].mean()
    np.testing.assert_allclose(metrics["task_loss"], task_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["distill_loss"], distill, rtol=1e-5)
    np.testing.assert_allclose(loss, task_loss + 0.5 * distill, rtol=1e-5)
    agree = teacher[rows].argmax(-1) == student[rows].argmax(-1)
    np.testing.assert_allclose(metrics["agreement"], agree.mean(), rtol=1e-6)


def test_the_teachers_own_parameters_learn_from_the_task_alone():
    model = toy.model()
    params, key = toy.parameters(model), jax.random.key(0)
    batches = {"labelled": toy.batch(seed=1), "unlabelled": toy.batch(seed=2, present=PRESENT)}
    grads = [
        tree.flatten(jax.jit(objective.value_and_grad)(params, {}, batches, key)[1])
        for objective in (Masd(model, ("audio",)), Supervised(model, ("audio",)))
    ]
    teachers = [path for path in grads[1] if "/audio/" in path]
    assert len(teachers) > 10
    for path in teachers:
        toy.assert_close(grads[0][path], grads[1][path])
    students = [path for path in grads[0] if "/text/" in path or "/image/" in path]
    assert students and all(np.asarray(grads[0][path]).any() for path in students)
    assert np.abs(grads[0]["head/kernel"] - grads[1]["head/kernel"]).max() > 1e-3


def test_the_loss_falls_as_the_student_approaches_the_teacher():
    teacher = jnp.array([[2.0, -1.0, 0.3]])
    losses = [float(masd_loss(teacher, teacher * share)) for share in (-1.0, 0.0, 0.5, 1.0)]
    assert losses == sorted(losses, reverse=True)
