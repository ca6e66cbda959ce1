"""A batch in parts gives the loss and the gradients of the whole one, for every objective, those that couple examples
among them."""

import dataclasses

import jax
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding

from mmr_jax import config as configs
from mmr_jax import methods, tree
from mmr_jax.errors import UserError
from mmr_jax.flops import count_flops
from mmr_jax.objectives import Contrastive, Masd, ModalityDropout, Supervised
from mmr_jax.objectives.microbatches import in_microbatches
from mmr_jax.train.sharding import BATCH, check_batch, put_batch

NAMES = tuple(toy.MODALITIES)
PRESENT = {"audio": [1, 1, 0, 1, 1, 1, 0, 1], "image": [1, 0, 1, 1, 1, 1, 1, 1], "text": [1, 1, 1, 0, 1, 1, 1, 1]}


def masked():
    config = toy.get_config()
    for key, value in {"objective": "masked", "masking.text.ratio": 0.5, "contrastive_weight": 0.1}.items():
        configs.set_field(config.pretrain, key, value)
    return methods.pretraining(config, toy.model({"adapter_depth": 1}), NAMES)


OBJECTIVES = {
    "contrastive": lambda: Contrastive(toy.model(), NAMES),
    "ring": lambda: Contrastive(toy.model(), NAMES, loss_name="sigmoid", bias=-2.0, contrast="chunked"),
    "masked": masked,
    "supervised": lambda: Supervised(toy.model(), ("audio", "text")),
    "dropout": lambda: ModalityDropout(toy.model(toy.JOINT), NAMES, 0.5),
    "masd": lambda: Masd(toy.model(), ("audio",)),
}


def batches():
    rows = [{**toy.batch(8, i, PRESENT), "weight": np.float32([1, 1, 1, 0, 1, 1, 2, 1])} for i in range(2)]
    return dict(zip(("labelled", "unlabelled"), rows, strict=True))


def value_and_grad(objective, given):
    params, _ = objective.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    with jax.default_matmul_precision("highest"):
        (loss, _), grads = jax.jit(objective.value_and_grad)(params, {}, given, jax.random.key(1))
    return float(loss), tree.flatten(grads)


@pytest.mark.parametrize("name", toy.slow_but(("contrastive", "masked", "masd"), OBJECTIVES))
def test_parts_give_what_the_whole_gives(name):
    objective = OBJECTIVES[name]()
    loss, grads = value_and_grad(objective, batches())
    largest = max(np.abs(g).max() for g in grads.values())
    assert largest > 1e-3
    parts = dataclasses.replace(objective, microbatches=4)
    found, parted = value_and_grad(parts, batches())
    np.testing.assert_allclose(found, loss, rtol=2e-6)
    assert parted.keys() == grads.keys()
    for path, expected in grads.items():
        np.testing.assert_allclose(parted[path], expected, atol=2e-6 * largest, err_msg=path)


def test_parts_on_a_mesh_give_the_same_and_move_no_example():
    objective, mesh = OBJECTIVES["contrastive"](), toy.mesh(2)
    parts = dataclasses.replace(objective, microbatches=2)
    expected, _ = value_and_grad(objective, batches())
    on_mesh = {k: put_batch(b, mesh) for k, b in batches().items()}
    assert value_and_grad(parts, on_mesh)[0] == pytest.approx(expected, rel=2e-6)

    x = jax.device_put(np.arange(8.0), NamedSharding(mesh, BATCH))
    program = jax.jit(lambda x: in_microbatches(lambda _, part: part * 2, 2, None, x)).lower(x).compile()
    np.testing.assert_array_equal(program(x), 2 * np.arange(8.0))
    assert not any(f"{kind}(" in program.as_text() for kind in ("all-gather", "all-to-all", "collective-permute"))


def test_parts_cost_a_forward_pass_and_draw_anew():
    objective, params = OBJECTIVES["supervised"](), toy.parameters(toy.model())
    forward = count_flops(lambda p: objective.loss(p, {}, batches(), jax.random.key(0)), params).total
    whole, parts = (
        count_flops(lambda p, o=o: o.value_and_grad(p, {}, batches(), jax.random.key(0)), params).total
        for o in (objective, dataclasses.replace(objective, microbatches=4))
    )
    assert 0.8 * forward <= parts - whole <= 1.05 * forward
    drawn = in_microbatches(lambda rng, x: x + jax.random.uniform(rng, x.shape), 4, jax.random.key(0), np.zeros(8))
    assert len(set(np.asarray(drawn).tolist())) == 8


def test_parts_must_divide_over_the_devices():
    check_batch(16, toy.mesh(4), 4)
    with pytest.raises(UserError, match="batch size 8, in 4 microbatches, is not divisible by data x fsdp = 4"):
        check_batch(8, toy.mesh(4), 4)
