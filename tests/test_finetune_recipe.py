"""The fields of CAV-MAE's fine-tuning in a study: which stages they repeat, what is refused, and one whole run."""

import dataclasses

import numpy as np
import pytest
import toy
from test_study import named, study, touched

from mmr_jax import methods
from mmr_jax.data.balanced import Balanced
from mmr_jax.data.labels import write_labels
from mmr_jax.data.source import labels_of
from mmr_jax.errors import UserError
from mmr_jax.objectives.mixup import Mixup

TRAINED = ["/finetune", "/masd", "dropout", "wise_ft", "export"]


@pytest.mark.parametrize("changes", [
    {"finetune__mixup": 0.5}, {"finetune__mixup_alpha": 2.0}, {"finetune__label_smoothing": 0.1},
    {"finetune__balanced": True}, {"finetune__average_every": 2}, {"finetune__average_from": 1},
], ids=str)  # fmt: skip
def test_a_field_of_the_recipe_repeats_the_training_of_methods(changes):
    assert touched(**changes) == named(*TRAINED)


def test_new_labels_repeat_the_probe_as_well_and_their_content_counts(tmp_path):
    for name, value in (("a", 0), ("b", 0), ("c", 1)):
        write_labels(tmp_path / name, np.arange(3), np.full((3, 4), value))
    assert touched(finetune__labels=str(tmp_path / "a")) == named("/probe", "evaluate/", *TRAINED)
    a, b, c = ([s.key for s in study("x", finetune__labels=str(tmp_path / n)).stages()] for n in "abc")
    assert a == b != c
    with pytest.raises(UserError, match="finetune.labels: .*No such file"):
        study("x", finetune__labels=str(tmp_path / "d")).stages()


@pytest.mark.parametrize("changes, message", [
    ({"finetune__mixup": 1.5}, "finetune.mixup is 1.5"),
    ({"finetune__mixup_alpha": 0.0}, "finetune.mixup_alpha is 0.0"),
    ({"finetune__label_smoothing": 1.0}, "finetune.label_smoothing is 1.0"),
    ({"finetune__ema": 0.9, "finetune__average_every": 2}, "finetune.ema and finetune.average_every exclude"),
    ({"pretrain__average_every": -1}, "pretrain: no step"),
    ({"finetune__average_every": 3, "finetune__average_from": 4}, "no step up to 4 is a multiple of average_every 3"),
], ids=str)  # fmt: skip
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        study("unused", **changes)


def test_every_method_gets_the_mixup_of_the_config():
    made = study("unused", finetune__mixup=0.5, finetune__mixup_alpha=2.0, finetune__label_smoothing=0.1)
    for method in methods.TRAINED:
        objective = methods.objective(method, made.config, made.model, ("audio", "text"), False)
        assert objective.mixup == Mixup(0.5, 2.0, 0.1)
        hash(objective)


def test_the_labelled_set_with_other_labels_and_balanced(tmp_path):
    made = study("unused")
    single = labels_of(made.labelled(0))[0]
    hot = np.eye(4, dtype=np.float32)
    path = tmp_path / "labels.npz"
    write_labels(path, np.arange(16), hot[np.arange(16) % 2])
    made = study("unused", finetune__labels=str(path), finetune__balanced=True)
    with pytest.raises(UserError, match="finetune.labels: .*one label per example"):
        made.labelled(0)

    class MultiLabel(toy.Batches):
        def labels(self):
            return self.rows["label"], self.rows["id"]

    rows = made.dataset.splits["labelled"].take(range(16))
    rows = {**rows, "label": hot[rows["label"]]}
    splits = {**made.dataset.splits, "labelled": MultiLabel(rows)}
    made.__dict__["dataset"] = dataclasses.replace(made.dataset, splits=splits, multilabel=True)
    label, ids = labels_of(made.labelled(0))
    np.testing.assert_array_equal(label, hot[ids % 2])
    assert not (label.argmax(-1) == single).all()
    training = made.training(0)
    assert isinstance(training, Balanced) and len(training) == 16
    np.testing.assert_array_equal(training.take([3])["label"], label[3:4])


@pytest.mark.slow
def test_a_study_with_the_whole_recipe(tmp_path):
    """Frames, mixup, smoothing, balanced draws, averaged weights, and a head that learns faster."""
    changes = {"methods": ("finetune", "masd"), "train_subsets": ("audio+image", "image"), "export": ""}
    recipe = {"mixup": 0.5, "label_smoothing": 0.1, "balanced": True, "average_every": 2, "average_from": 2}
    made = study(
        tmp_path,
        modalities__image__frames=2,
        modalities__audio__augment__uniform_noise=0.1,
        finetune__optim__groups=(("^head", 10.0),),
        **{f"study__{k}": v for k, v in changes.items()},
        **{f"finetune__{k}": v for k, v in recipe.items()},
    )
    made.run()
    for stage in made.stages():
        record = made.record(stage)
        assert record
        if stage.kind == "evaluate":
            assert len(record["scores"]) == 2 * 7 and all(0 <= r["score"] <= 1 for r in record["scores"])
