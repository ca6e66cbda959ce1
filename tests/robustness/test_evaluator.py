import collections

import jax
import numpy as np
import pytest
import toy

from mmr_jax.models import tokenizers
from mmr_jax.models.model import cut
from mmr_jax.robustness.evaluator import SubsetEvaluator, fused_embeddings
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


def test_eight_devices_give_the_same_scores():
    model, rows = toy.model(), toy.Batches(toy.batch(5, present=PRESENT))
    params = toy.parameters(model)
    one, eight = (SubsetEvaluator(model, SUBSETS, 8, mesh).logits(params, rows) for mesh in (toy.mesh(), toy.mesh(8)))
    np.testing.assert_allclose(eight["scores"], one["scores"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(eight["valid"], one["valid"])
