import collections

import jax
import numpy as np
import pytest
import toy

from mmr_jax import config as configs
from mmr_jax.models import tokenizers
from mmr_jax.models.model import cut
from mmr_jax.robustness.evaluator import SubsetEvaluator, fused_embeddings, mean_logits
from mmr_jax.robustness.subsets import all_subsets, subset_masks

PRESENT = {"audio": [1, 0, 1, 0, 1], "image": [1, 1, 0, 0, 0], "text": [1, 1, 0, 1, 0]}
SUBSETS = all_subsets(toy.MODALITIES)


def alone(model, params, batch, names):
    """Logits from only the modalities in `names`, and who has any of them."""
    module = model.bind(params)
    inputs, length, present = cut(batch, names)
    out = module.classify(module.fuse(module.parts(inputs, length), present))
    return np.asarray(out), np.any([np.asarray(present[m]) for m in names], axis=0)


@pytest.mark.parametrize("changes", [{}, toy.JOINT], ids=str)
def test_every_subset_equals_the_model_given_only_its_modalities(changes):
    model = toy.model(changes)
    params, rows = toy.parameters(model), toy.batch(5, present=PRESENT)
    found = SubsetEvaluator(model, SUBSETS, 4, toy.mesh()).logits(params, toy.Batches(rows))  # two batches, padded
    assert found["scores"].shape == (7, 5, toy.CLASSES) and found["scores"].dtype == np.float32
    np.testing.assert_array_equal(found["labels"], rows["label"])
    np.testing.assert_array_equal(found["ids"], rows["id"])
    for i, subset in enumerate(SUBSETS):
        expected, valid = alone(model, params, rows, subset.split("+"))
        np.testing.assert_array_equal(found["valid"][i], valid)
        np.testing.assert_allclose(found["scores"][i][valid], expected[valid], rtol=1e-4, atol=1e-5)
    assert len({found["scores"][i, 0].tobytes() for i in range(7)}) == 7  # all differ where all are present


@pytest.mark.parametrize("changes", [{}, toy.JOINT], ids=str)
def test_each_modality_is_encoded_once(changes, monkeypatch):
    calls, plain = collections.Counter(), tokenizers.Tokenizer.__call__

    def counted(self, *arguments):
        calls[self.name] += 1
        return plain(self, *arguments)

    monkeypatch.setattr(tokenizers.Tokenizer, "__call__", counted)
    model = toy.model(changes)
    masks = subset_masks(model.names, SUBSETS)
    jax.eval_shape(lambda p, b, m: fused_embeddings(model, p, b, m), model.shapes, toy.batch(), masks)
    assert calls == dict.fromkeys(toy.MODALITIES, 1)


def test_embeddings_are_what_the_head_reads():
    model, rows = toy.model(), toy.Batches(toy.batch(5, present=PRESENT))
    params = toy.parameters(model)
    evaluator = SubsetEvaluator(model, ["text", "audio+image"], 8, toy.mesh())
    fused, logits = evaluator.embeddings(params, rows), evaluator.logits(params, rows)
    np.testing.assert_allclose(
        fused["scores"] @ params["head"]["kernel"] + params["head"]["bias"], logits["scores"], rtol=1e-4, atol=1e-5
    )
    assert not fused["scores"][~fused["valid"]].any()


FRAMED = {**toy.MODALITIES, "image": configs.image(height=8, width=8, patch_size=(4, 4), frames=3)}
MIXED = {**FRAMED, "view": configs.image(height=8, width=8, patch_size=(4, 4), frames=6)}


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def softmax(x):
    x = np.exp(np.float64(x) - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize(
    "modalities, changes", [(FRAMED, {}), (FRAMED, toy.JOINT), (MIXED, {})], ids=["mean", "joint", "two"]
)
def test_probabilities_of_frames_are_averaged(modalities, changes, multilabel):
    model = toy.model(changes, modalities)
    params, rows = toy.parameters(model), toy.batch(5, present=PRESENT, modalities=modalities, multilabel=multilabel)
    subsets = ["audio", "image", "+".join(sorted(modalities))]
    evaluator = SubsetEvaluator(model, subsets, 4, toy.mesh(), multilabel)
    found = evaluator.logits(params, toy.Batches(rows))
    probability = sigmoid if multilabel else softmax
    counts = {m: cfg["frames"] for m, cfg in modalities.items() if cfg["kind"] == "image"}
    most = max(counts.values())
    for i, subset in enumerate(subsets):
        each = []
        for frame in range(most):
            chosen = {m: rows["inputs"][m][:, frame * n // most] for m, n in counts.items()}
            one = {**rows, "inputs": {**rows["inputs"], **chosen}}
            logits, valid = alone(model, params, one, subset.split("+"))
            each.append(probability(logits))
        np.testing.assert_array_equal(found["valid"][i], valid)
        mean = np.mean(each, axis=0)
        np.testing.assert_allclose(probability(found["scores"][i])[valid], mean[valid], rtol=1e-4, atol=1e-6)
        if not multilabel:  # a logit is a log-probability, so ranks between examples are those of the mean as well
            np.testing.assert_allclose(np.exp(found["scores"][i])[valid], mean[valid], rtol=1e-4, atol=1e-6)
        if subset == "image":
            assert np.abs(each[0] - each[-1])[valid].max() > 1e-3


def test_embeddings_use_the_middle_frame():
    model = toy.model(modalities=FRAMED)
    params, rows = toy.parameters(model), toy.batch(5, modalities=FRAMED)
    found = SubsetEvaluator(model, ["image"], 5, toy.mesh()).embeddings(params, toy.Batches(rows))["scores"][0]
    module = model.bind(params)
    part = module.parts({"image": rows["inputs"]["image"][:, 1]}, {"image": rows["length"]["image"]})
    np.testing.assert_allclose(found, module.fuse(part, {"image": rows["present"]["image"]}), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("multilabel", [False, True])
def test_sure_frames_stay_finite(multilabel):
    logits = np.array([[[300.0, -300.0]], [[300.0, -300.0]], [[-300.0, 300.0]]], np.float32)
    found = np.asarray(mean_logits(logits, multilabel))[0]
    expected = [np.log(2), -np.log(2)] if multilabel else [np.log(2 / 3), np.log(1 / 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(mean_logits(logits[:2], multilabel)).all()


def test_eight_devices_give_the_same_scores():
    model, rows = toy.model(), toy.Batches(toy.batch(5, present=PRESENT))
    params = toy.parameters(model)
    one, eight = (SubsetEvaluator(model, SUBSETS, 8, mesh).logits(params, rows) for mesh in (toy.mesh(), toy.mesh(8)))
    np.testing.assert_allclose(eight["scores"], one["scores"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(eight["valid"], one["valid"])
