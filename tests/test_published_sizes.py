"""The full-size CAV-MAE and CLIP configs against the sizes and costs of the published models, on shapes alone."""

from dataclasses import replace
from pathlib import Path

import jax
import pytest

from mmr_jax import config as configs
from mmr_jax import methods, tree
from mmr_jax.dry_run import batch_shapes
from mmr_jax.flops import count_flops
from mmr_jax.study import Study

BATCH = 4
RATIOS = (0.5, 0.65, 0.75)
AUDIO, IMAGE = 512, 196  # patches
# The published code (YuanGongND/cav-mae @68fe8c2) gives each block six norms, of which all but one block use two:
# 4 more pairs of scale and bias in 22 blocks 768 wide and 8 blocks 512 wide.
DEAD_ENCODER, DEAD_DECODER = 22 * 4 * 2 * 768, 8 * 4 * 2 * 512
TABLES = (AUDIO + IMAGE) * (768 + 512)  # sin-cos positions of encoder and decoder


def make(file) -> Study:
    return Study(configs.load(f"configs/{file}"), Path("unused"))


@pytest.fixture(scope="module")
def cavmae():
    """(study, pretraining objective, shapes of its parameters)."""
    study = make("cavmae/audioset_base.py")
    objective = methods.pretraining(study.config, study.model, study.modalities)
    return study, objective, jax.eval_shape(objective.init, jax.random.key(0))[0]


def total(leaves: dict) -> int:
    return sum(leaf.size for leaf in leaves.values())


def test_cavmae_has_the_published_parameters(cavmae):
    _, objective, params = cavmae
    flat = tree.flatten(params)
    encoder = {p: leaf for p, leaf in flat.items() if p.startswith("encoder/")}
    decoder = {p: leaf for p, leaf in flat.items() if p.startswith("decoder/")}
    heads = {p: leaf for p, leaf in flat.items() if p.startswith(("head/", "head_norm/"))}
    assert total(encoder) + DEAD_ENCODER == 164_500_224
    assert total(decoder) + DEAD_DECODER == 26_535_936
    assert total(encoder) + total(decoder) + DEAD_ENCODER + DEAD_DECODER == 191_036_160
    assert DEAD_ENCODER + DEAD_DECODER == 167_936 and TABLES == 906_240
    assert encoder.keys() | decoder.keys() | heads.keys() == flat.keys()
    trained = {p: leaf for p, leaf in flat.items() if objective.trains(p)}
    assert total(trained) + DEAD_ENCODER + DEAD_DECODER == 190_129_920 == 191_036_160 - TABLES
    # the fine-tuning model: encoder and head, 527 classes, everything trains
    assert total(encoder) + total(heads) + DEAD_ENCODER == 164_907_023


def test_clip_has_the_published_parameters():
    shapes = tree.flatten(make("robustness/imagenet_captions.py").model.shapes)
    clip = {p: leaf for p, leaf in shapes.items() if not p.startswith("head/")}
    assert total(clip) + 1 == 149_620_737  # and logit_scale
    visual = {p: leaf for p, leaf in clip.items() if "/image/" in p}
    assert total(visual) == 86_192_640


def block(tokens: int, width: int, mlp: int) -> int:
    """FLOPs of one transformer block, forward: qkv, output and the two layers of the MLP; scores and their sum."""
    return 2 * tokens * width * (4 * width + 2 * mlp) + 4 * tokens**2 * width


def front_end() -> int:
    """10 s of sound: 998 frames of 400 samples by the DFT (257 bins, real and imaginary), then by 128 filters."""
    return 2 * 998 * 400 * 2 * 257 + 2 * 998 * 257 * 128


def pretraining_flops(ratio: float) -> tuple[float, float]:
    """(forward, forward and backward) FLOPs per example of CAV-MAE at a mask ratio, without the front end."""
    audio, image = int(AUDIO * (1 - ratio)), int(IMAGE * (1 - ratio))
    patches = 2 * AUDIO * 256 * 768 + 2 * IMAGE * 768 * 768
    encoder = sum(11 * block(n, 768, 3072) + block(n, 768, 3072) for n in (audio, image))
    encoder += block(audio + image, 768, 3072)
    decoder = 2 * (audio + image) * 768 * 512 + 8 * block(AUDIO + IMAGE, 512, 2048)
    decoder += 2 * AUDIO * 512 * 256 + 2 * IMAGE * 512 * 768
    logits = 2 * BATCH * 768  # an example against the batch; once more, without gradient, for the accuracy
    forward = patches + encoder + decoder + 2 * logits
    # a product's backward pass is two products; the patches themselves need no gradient, so theirs is one
    return forward, 2 * patches + 3 * (encoder + decoder + logits) + logits


@pytest.fixture(scope="module")
def counted(cavmae):
    """{ratio: (FLOPs of the loss, FLOPs of the loss and its gradients)} per example."""
    study, objective, params = cavmae
    arguments = (params, {}, {"unlabelled": batch_shapes(study, BATCH)}, jax.eval_shape(jax.random.key, 0))
    found = {}
    for ratio in RATIOS:
        masked = replace(objective, masking=tuple((m, ratio, mode) for m, _, mode in objective.masking))
        passes = [count_flops(step, *arguments) for step in (masked.loss, masked.value_and_grad)]
        assert [p.unbounded for p in passes] == [0, 0]
        found[ratio] = tuple(p.total / BATCH for p in passes)
    return found


@pytest.mark.parametrize("ratio", RATIOS)
def test_pretraining_costs_what_the_formula_says(counted, ratio):
    for found, formula in zip(counted[ratio], pretraining_flops(ratio), strict=True):
        assert found == formula + front_end()


def test_pretraining_costs_what_the_published_model_costs(counted):
    forward, step = counted[0.75]
    assert forward / 1e9 == pytest.approx(78.1, rel=0.01)  # measured on the published code, which has no front end
    assert step / 1e9 == pytest.approx(233.8, rel=0.01)


@pytest.mark.parametrize("argument, published", [("", 132.4), (":audio", 96.8), (":image", 34.9)])
def test_finetuned_models_cost_what_the_published_ones_cost(argument, published):
    study = make(f"cavmae/audioset20k.py{argument}")
    names = study.train_subsets[0].split("+")
    batch = batch_shapes(study, BATCH)

    def logits(params, inputs, length, present):
        model = study.model.bind(params)
        return model.classify(model.fuse(model.parts(inputs, length), present))

    parts = [{m: batch[part][m] for m in names} for part in ("inputs", "length", "present")]
    found = count_flops(logits, study.model.shapes, *parts).total / BATCH
    assert (found - ("audio" in names) * front_end()) / 1e9 == pytest.approx(published, rel=0.005)
