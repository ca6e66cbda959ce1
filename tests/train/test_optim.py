import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmr_jax import config as configs
from mmr_jax import tree
from mmr_jax.errors import UserError
from mmr_jax.train.optim import learning_rate, make_optimizer


def block(**changes):
    return configs.freeze(configs.optim(**changes))


def rates(steps, at, **changes):
    schedule = learning_rate(block(**changes), steps)
    return [float(schedule(step)) for step in at]


def test_cosine_with_warm_up():
    found = rates(100, [0, 4, 9, 10, 55, 100], lr=0.2, warmup_steps=10)
    np.testing.assert_allclose(found, [0.02, 0.1, 0.2, 0.2, 0.1, 0], atol=1e-7)
    np.testing.assert_allclose(rates(100, [0, 25, 50, 99], lr=1.0), [1, 0.85355, 0.5, 0.000247], atol=1e-5)


def test_constant_and_one_step_of_warm_up():
    assert rates(10, [0, 1, 9], lr=0.5, schedule="constant") == [0.5] * 3
    np.testing.assert_allclose(rates(10, [0, 1, 5], lr=0.5, schedule="constant", warmup_steps=1), [0.5] * 3)
    np.testing.assert_allclose(rates(4, [0, 3], lr=1.0, schedule="constant", warmup_steps=99), [0.25, 1.0])


@pytest.mark.parametrize("warmup", [0, 5])
def test_multistep_decays_at_shares_of_the_run(warmup):
    found = rates(
        20, [warmup, 9, 10, 14, 15, 19], lr=1.0, schedule="multistep", decay_at=(0.5, 0.75), warmup_steps=warmup
    )
    np.testing.assert_allclose(found, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


# CAV-MAE: epochs, start and step of its MultiStepLR(range(start, 1000, step), gamma=0.5), advanced once per epoch
@pytest.mark.parametrize("epochs, start, step", [(25, 10, 5), (15, 5, 1), (10, 2, 1)])
def test_the_published_schedule_of_cav_mae(epochs, start, step):
    per_epoch = 519  # AudioSet-20K with batches of 36
    expected, lr, milestones = [], 5e-5, range(start, 1000, step)
    for epoch in range(epochs):
        expected += [lr] * per_epoch
        lr *= 0.5 if epoch + 1 in milestones else 1.0
    decay_at = tuple(e / epochs for e in range(start, epochs, step))
    settings = dict(lr=5e-5, schedule="multistep", decay_at=decay_at, decay_factor=0.5)
    found = jax.vmap(learning_rate(block(**settings), epochs * per_epoch))(np.arange(epochs * per_epoch))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_head_of_cav_mae_learns_a_hundred_times_as_fast():
    """Its optimiser: Adam with coupled L2 and betas (0.95, 0.999); the head is a norm and a linear layer."""
    model = toy.model({"normalize": "layer"})
    groups = (("^head(_norm)?/", 100.0),)
    settings = dict(name="adam_l2", lr=5e-5, weight_decay=5e-7, b1=0.95, b2=0.999, clip=0.0, schedule="constant")
    params = toy.parameters(model)
    changes = []
    for chosen in ((), groups):
        optimizer = make_optimizer(block(**settings, groups=chosen), 10)
        changes.append(tree.flatten(optimizer.update(params, optimizer.init(params), params)[0]))
    heads = {path for path in changes[0] if path.startswith("head")}
    assert heads == {"head/kernel", "head/bias", "head_norm/scale", "head_norm/bias"}
    for path, plain in changes[0].items():
        np.testing.assert_allclose(changes[1][path], plain * (100.0 if path in heads else 1.0), rtol=1e-6)


def values(seed):
    rng = np.random.default_rng(seed)
    paths = (
        "head/kernel",
        "head/bias",
        "encoder/norms/a/scale",
        "tokenizers/t/embed/embedding",
        "tokenizers/t/position",
    )
    return {p: rng.normal(size=(3, 2)).astype(np.float32) for p in paths}


def updates(steps=1, **changes):
    """Parameters after `steps` steps with gradients values(1), values(2), .. from values(0)."""
    optimizer = make_optimizer(block(schedule="constant", lr=0.1, clip=0.0, **changes), 10)
    params = tree.unflatten(values(0))
    state = optimizer.init(params)
    for i in range(steps):
        change, state = optimizer.update(tree.unflatten(values(i + 1)), state, params)
        params = jax.tree.map(lambda p, u: p + u, params, change)
    return tree.flatten(params)


def by_hand(name, steps=1, decay=0.0, b1=0.9, b2=0.98, eps=1e-8, factor=lambda path: 1.0):
    out = {}
    for path, p in values(0).items():
        p, m, v = np.float64(p), 0.0, 0.0
        rate = decay if path.endswith(("kernel", "embedding")) else 0.0
        for i in range(1, steps + 1):
            g = np.float64(values(i)[path])
            if name != "adamw":
                g = g + rate * p
            m = b1 * m + (g if name == "sgd" else (1 - b1) * g)
            v = b2 * v + (1 - b2) * g * g
            change = m if name == "sgd" else m / (1 - b1**i) / (np.sqrt(v / (1 - b2**i)) + eps)
            p = p - 0.1 * factor(path) * (change + (rate * p if name == "adamw" else 0))
        out[path] = p
    return out


@pytest.mark.parametrize("name", ["adamw", "adam_l2", "sgd"])
def test_three_steps_equal_numpy(name):
    found, expected = updates(3, name=name, weight_decay=0.3), by_hand(name, 3, decay=0.3)
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-4, atol=1e-6, err_msg=path)


def test_decay_acts_on_kernels_and_embeddings_only():
    plain, decayed = updates(name="adamw", weight_decay=0.0), updates(name="adamw", weight_decay=0.3)
    changed = {path for path in plain if (plain[path] != decayed[path]).any()}
    assert changed == {"head/kernel", "tokenizers/t/embed/embedding"}


def test_groups_scale_the_update_of_the_first_match():
    groups = (("^head/kernel", 0.5), ("^head", 3.0), ("position$", 0.0))
    factors = {"head/kernel": 0.5, "head/bias": 3.0, "tokenizers/t/position": 0.0}
    found = updates(2, name="adamw", weight_decay=0.3, groups=groups)
    expected = by_hand("adamw", 2, decay=0.3, factor=lambda path: factors.get(path, 1.0))
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-4, atol=1e-6, err_msg=path)
    np.testing.assert_array_equal(found["tokenizers/t/position"], values(0)["tokenizers/t/position"])


def test_clipping_is_by_the_global_norm():
    optimizer = make_optimizer(block(name="sgd", schedule="constant", lr=1.0, weight_decay=0.0, clip=0.5), 10)
    grads = {"a": {"kernel": jnp.array([3.0])}, "b": {"bias": jnp.array([4.0])}}
    change, _ = optimizer.update(grads, optimizer.init(grads), grads)
    np.testing.assert_allclose([change["a"]["kernel"][0], change["b"]["bias"][0]], [-0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize("changes, message", [
    ({"name": "adamv"}, "optim.name.*did you mean 'adamw'"),
    ({"schedule": "cosin"}, "optim.schedule.*did you mean 'cosine'"),
])  # fmt: skip
def test_unknown_names_are_refused_with_the_nearest(changes, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(block(**changes), 10)
    with pytest.raises(UserError, match="optim has no field 'weight_deacy'; did you mean 'weight_decay'"):
        configs.optim(weight_deacy=0.1)


def test_every_leaf_of_a_real_model_is_known_to_the_rule_of_decay():
    decayed = {p.rsplit("/", 1)[1] for p in toy.shapes(toy.model({"class_token": True, "projection.kind": "mlp"}))}
    assert decayed == {"kernel", "embedding", "bias", "scale", "position", "class_token"}
