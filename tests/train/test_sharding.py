import jax
import pytest
import toy
from jax.sharding import AxisType, PartitionSpec

from mmr_jax import tree
from mmr_jax.errors import UserError
from mmr_jax.objectives import Contrastive, LinearProbe, Supervised
from mmr_jax.plan.collectives import find_collectives
from mmr_jax.plan.hlo import Program
from mmr_jax.train.sharding import check_batch, make_mesh, partition_spec, put_batch, state_sharding
from mmr_jax.train.step import make_program

OPTIONS = [
    {"class_token": True, "projection.kind": "mlp"},
    {"adapter_depth": 0, "projection.kind": "none"},
    {**toy.JOINT, "stream_norms": "shared"},
    {**toy.JOINT, "class_token": True},
]


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
def test_every_parameter_matches_a_rule(changes):
    mesh = toy.mesh(2, 2, 2)
    specs = {path: partition_spec(path, leaf.shape, mesh) for path, leaf in toy.shapes(toy.model(changes)).items()}
    kernels = [path for path in specs if path.endswith("/kernel") and not path.startswith("head")]
    assert kernels and all(any(specs[path]) for path in kernels)  # no kernel of a block is left whole
    assert not any(any(spec) for path, spec in specs.items() if path.endswith(("bias", "scale", "position")))


def test_specs_of_some_parameters():
    mesh = toy.mesh(2, 2, 2)
    expected = {
        ("encoder/owned/a/layers/attention/qkv/kernel", (2, 16, 48)): (None, "fsdp", "tensor"),
        ("encoder/shared/layers/attention/out/kernel", (2, 16, 16)): (None, "tensor", "fsdp"),
        ("encoder/shared/layers/mlp/down/kernel", (2, 32, 16)): (None, "tensor", "fsdp"),
        ("encoder/shared/layers/mlp/down/kernel", (2, 33, 16)): (None, None, "fsdp"),
        ("encoder/tokenizers/text/embed/embedding", (259, 16)): (None, "fsdp"),
        ("head/kernel", (3, 16, 5)): (None, "fsdp", None),
        ("logit_scale", ()): (),
    }
    for (path, shape), spec in expected.items():
        assert partition_spec(path, shape, mesh) == PartitionSpec(*spec), path


def test_a_parameter_without_a_rule_is_refused():
    with pytest.raises(UserError, match="no sharding rule matches parameter 'encoder/gate'"):
        partition_spec("encoder/gate", (4,), toy.mesh())


def test_states_of_other_objectives_match_too():
    model, mesh = toy.model(), toy.mesh(2, 2, 2)
    for objective in (Contrastive(model, model.names, learn_temperature=True), LinearProbe(7, 16, 4)):
        shapes = jax.eval_shape(objective.init, jax.random.key(0))[0]
        assert len(jax.tree.leaves(state_sharding(shapes, mesh))) == len(jax.tree.leaves(shapes))


def test_mesh_takes_the_devices_that_are_left():
    assert dict(make_mesh({"data": -1, "fsdp": 2, "tensor": 1}).shape) == {"data": 4, "fsdp": 2, "tensor": 1}
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": -1})
    assert mesh.shape["tensor"] == 8 and mesh.axis_types == (AxisType.Auto,) * 3


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, -1, 1), (-1, 3, 1), (4, 1, 1), (0, 1, 8), (16, 1, 1)])
def test_a_mesh_that_does_not_fit_is_refused(sizes):
    with pytest.raises(UserError, match="does not fit 8 devices"):
        make_mesh(dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))


def test_batches_divide_over_data_and_fsdp():
    mesh = toy.mesh(2, 2, 2)
    check_batch(8, mesh)
    with pytest.raises(UserError, match="batch size 6 is not divisible by data x fsdp = 4"):
        check_batch(6, mesh)
    batch = put_batch(toy.batch(8), mesh)
    assert {len({s.index[0].start for s in x.addressable_shards}) for x in jax.tree.leaves(batch)} == {4}


def test_under_fsdp_weights_travel_and_activations_do_not():
    modalities = {"image": toy.MODALITIES["image"]}
    model, mesh = toy.model({"width": 64, "mlp_dim": 256}, modalities), toy.mesh(fsdp=8)
    objective = Supervised(model, ("image",))
    program = make_program(objective, toy.recipe().optim, 10, 0.0, mesh)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: program.start(*objective.init(key)), key)
    sent = {}
    for size in (16, 64):
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
            toy.batch(size, modalities=modalities),
        )
        text = program.step.lower(state, {"labelled": batch}, key).compile().as_text()
        sent[size] = sum(c.sent for c in find_collectives(Program(text)))
    trained = sum(x.size * 4 for path, x in tree.flatten(model.shapes).items() if objective.trains(path))
    assert sent[64] == pytest.approx(sent[16], rel=0.02)  # it does not grow with the batch
    assert sent[64] < 5 * trained  # gathered forwards and backwards, and the gradients summed
