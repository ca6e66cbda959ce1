"""Losses that go through the logits block by block, against those that build the whole matrix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding

from mmr_jax import methods, tree
from mmr_jax.checks import check
from mmr_jax.errors import UserError
from mmr_jax.objectives import logit_sums
from mmr_jax.objectives.contrastive import pairwise_info_nce, pairwise_loss, pairwise_sigmoid
from mmr_jax.train.sharding import BATCH

SIZE = 16
KEY = jax.random.key(0)
# name: (loss, direction, modalities)
CASES = {
    "both": ("info_nce", "both", "abc"),
    "both_of_two": ("info_nce", "both", "ab"),
    "forward": ("info_nce", "forward", "abc"),
    "backward": ("info_nce", "backward", "ab"),
    "sigmoid": ("sigmoid", "both", "abc"),
    "sigmoid_of_two": ("sigmoid", "both", "ab"),
}
# Of 16 examples, two for each of eight devices: the last has nothing, the second and the sixth lack some pairs.
PRESENT = {"a": "1100111011111000", "b": "1101011111110100", "c": "0111110101111000"}


def example(names, seed=0):
    """(embeddings, log of the scale, bias), and presence; what is absent is not finite."""
    rng = np.random.default_rng(seed)
    present = {m: np.array(list(PRESENT[m]), int).astype(bool) for m in names}
    z = {m: np.where(p[:, None], rng.normal(size=(SIZE, 6)), np.nan).astype(np.float32) for m, p in present.items()}
    return (z, np.float32(2.0), np.float32(-3.0)), present


def value_and_grads(case, contrast, given, present):
    """((loss, of each pair), gradients of embeddings, log scale and bias)."""
    loss, direction, _ = CASES[case]

    def value(z, log_scale, bias):
        return pairwise_loss(loss, z, present, jnp.exp(-log_scale), direction, bias, contrast)

    return jax.value_and_grad(value, argnums=(0, 1, 2), has_aux=True)(*given)


@functools.cache
def plain(case):
    return jax.jit(functools.partial(value_and_grads, case, "plain"))(*example(CASES[case][2]))


def on_mesh(mesh, function, *arrays):
    """Compiled with batches split over the mesh, as in train/step.py."""

    def run(*arrays):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arrays)

    whole = NamedSharding(mesh, jax.P())
    split = jax.tree.map(lambda x: NamedSharding(mesh, BATCH) if np.ndim(x) else whole, arrays)
    return jax.jit(run, in_shardings=split)(*arrays)


def assert_equal_results(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(b).all()
        toy.assert_close(a, b)


@pytest.mark.parametrize("case", CASES)
def test_ring_over_eight_devices_equals_plain(case):
    found = on_mesh(toy.mesh(4, 2, 1), functools.partial(value_and_grads, case, "ring"), *example(CASES[case][2]))
    assert_equal_results(found, plain(case))
    (_, pairs), (z, scale, _) = found
    assert len(pairs) == (3 if len(CASES[case][2]) == 3 else 1) and all(float(p) > 0 for p in pairs.values())
    assert all(np.abs(g).max() > 0 for g in z.values()) and scale != 0


@pytest.mark.parametrize(("case", "chunk"), [*((case, 5) for case in CASES), ("both", 8), ("both", 512)])
def test_chunked_equals_plain(case, chunk, monkeypatch):
    monkeypatch.setattr(logit_sums, "CHUNK", chunk)
    found = jax.jit(functools.partial(value_and_grads, case, "chunked"))(*example(CASES[case][2]))
    assert_equal_results(found, plain(case))


@pytest.mark.parametrize("contrast", ["ring", "chunked"])
def test_a_mesh_with_tensor_parallelism_gives_the_same(contrast, monkeypatch):
    monkeypatch.setattr(logit_sums, "CHUNK", 4)
    run = functools.partial(value_and_grads, "both", contrast)
    assert_equal_results(on_mesh(toy.mesh(2, 2, 2), run, *example("abc")), plain("both"))


def test_a_ring_of_one_device_is_one_block():
    assert_equal_results(jax.jit(functools.partial(value_and_grads, "both", "ring"))(*example("abc")), plain("both"))


def test_the_ring_takes_a_batch_that_the_devices_do_not_divide():
    (z, *scaling), present = example("ab")
    cut = ({m: v[:13] for m, v in z.items()}, *scaling), {m: p[:13] for m, p in present.items()}
    with jax.set_mesh(toy.mesh(8)):
        found = jax.jit(functools.partial(value_and_grads, "sigmoid_of_two", "ring"))(*cut)
    assert_equal_results(found, jax.jit(functools.partial(value_and_grads, "sigmoid_of_two", "plain"))(*cut))


@pytest.mark.parametrize("contrast", ["chunked", "ring"])
def test_published_numbers(contrast, reference, monkeypatch):
    monkeypatch.setattr(logit_sums, "CHUNK", 4)
    file = np.load(reference / "info_nce.npz")
    z, there = {m: file[f"in/{m}"] for m in "avt"}, {m: np.ones(SIZE, bool) for m in "avt"}
    losses = {
        "tau0.05": lambda z, there: pairwise_info_nce(z, there, 0.05, contrast=contrast),
        "siglip": lambda z, there: pairwise_sigmoid(z, there, 0.1, -10.0, contrast),
    }
    for key, loss in losses.items():
        run = jax.value_and_grad(loss, has_aux=True)
        (mean, pairs), grads = on_mesh(toy.mesh(8), run, z, there)
        toy.assert_close(mean, file[f"loss/{key}/mean3"])
        for names, pair in {"av": "a-v", "at": "a-t", "vt": "t-v"}.items():
            toy.assert_close(pairs[pair], file[f"loss/{key}/{names}" + ("" if key == "siglip" else "/sym")])
        for m in z:
            toy.assert_close(grads[m], file[f"grad/{key}/mean3/{m}"])


def shapes_in(jaxpr):
    """Shapes of all that a program makes on the way, those of its parts included."""
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


@pytest.mark.parametrize("contrast", ["plain", "chunked", "ring"])
def test_only_plain_makes_the_whole_matrix(contrast, monkeypatch):
    """512 examples of 4 channels, chunks of 64, eight devices: forward and backward."""
    monkeypatch.setattr(logit_sums, "CHUNK", 64)
    z = {m: jnp.ones((512, 4)) for m in "ab"}
    present = {m: jnp.ones(512, bool) for m in "ab"}
    with jax.sharding.use_abstract_mesh(toy.mesh(8).abstract_mesh):
        run = functools.partial(value_and_grads, "both_of_two", contrast)
        jaxpr = jax.make_jaxpr(run)((z, 1.0, 0.0), present)
    largest = max(np.prod(shape, dtype=int) for shape in shapes_in(jaxpr.jaxpr))
    assert largest == {"plain": 512 * 512, "chunked": 512 * 64, "ring": 64 * 64}[contrast]


def objective(**changes):
    """The objective of pretraining on two modalities that a config with `changes` to `pretrain` makes."""
    config = toy.get_config("two")
    config.model.depth = 1
    config.pretrain.update(learn_temperature=True, **changes)
    check(config)
    model = toy.model({"depth": 1}, {m: toy.MODALITIES[m] for m in ("audio", "text")})
    return methods.pretraining(config, model, model.names)


def test_training_on_a_mesh_takes_the_ring_that_the_config_names():
    made = {contrast: objective(loss="sigmoid", contrast=contrast) for contrast in ("ring", "plain")}
    params, _ = made["plain"].init(KEY)
    batch = toy.batch(8, present={"audio": [1, 1, 1, 0, 1, 0, 1, 1], "text": [1, 0, 1, 1, 0, 0, 1, 1]})
    (ring, grads), (plain_loss, expected) = (
        on_mesh(toy.mesh(2, 2), lambda batch, o=o: o.value_and_grad(params, {}, {"unlabelled": batch}, KEY), batch)
        for o in made.values()
    )
    toy.assert_close(ring[0], plain_loss[0])
    largest = max(np.abs(g).max() for g in jax.tree.leaves(expected))
    for path, gradient in tree.flatten(grads).items():
        np.testing.assert_allclose(gradient, tree.flatten(expected)[path], rtol=0, atol=1e-5 * largest, err_msg=path)
    assert params["logit_bias"] == -10 and grads["logit_bias"] != 0 and grads["logit_scale"] != 0


@pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
def test_masked_pretraining_takes_it_too_but_then_has_no_accuracy(loss, monkeypatch):
    monkeypatch.setattr(logit_sums, "CHUNK", 5)
    (z, *_), seen = example("ab")
    found = {}
    for contrast in ("plain", "chunked"):
        changes = {"objective": "masked", "contrastive_weight": 1.0, "loss": loss, "contrast": contrast}
        made = objective(**changes)
        found[contrast] = jax.jit(made._contrast)({m: np.nan_to_num(v) for m, v in z.items()}, seen)
    toy.assert_close(found["chunked"][0], found["plain"][0])
    assert found["plain"][1].keys() - found["chunked"][1].keys() == {"accuracy_a-b"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "siglip"}, "pretrain.loss is 'siglip'"),
        ({"contrast": "rings"}, "did you mean 'ring'"),
        ({"loss": "sigmoid", "direction": "forward"}, "pretrain.direction is of no use to pretrain.loss='sigmoid'"),
        ({"logit_bias": float("nan")}, "pretrain.logit_bias is nan"),
    ],
)
def test_what_the_config_refuses(changes, message):
    with pytest.raises(UserError, match=message):
        objective(**changes)
