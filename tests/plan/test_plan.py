"""Plans for the machine at hand, against counts by hand and against what is really allocated."""

import functools
import io
import json

import jax
import pytest
import toy
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.errors import UserError
from mmr_jax.plan import facts
from mmr_jax.plan.advice import advise, waste
from mmr_jax.plan.compiled import Compiled
from mmr_jax.plan.facts import bytes_in_all, bytes_per_device
from mmr_jax.plan.plan import make_plan
from mmr_jax.plan.steps import Step, steps
from mmr_jax.plan.tables import print_plan, write_plan
from mmr_jax.plan.target import at_hand
from mmr_jax.study import Study
from mmr_jax.train.sharding import make_mesh

BATCH, LENGTH, DIM, WIDTH, DEPTH, MLP, SPACE, CLASSES = 16, 24, 48, 64, 2, 96, 32, 24
NAMES = ("left", "right")


def make(remat="none", **changes):
    """Two towers over images of 4 x 6 patches: every product in it can be counted by hand."""
    config = configs.base("synthetic", {m: configs.image(height=16, width=24, patch_size=(4, 4)) for m in NAMES})
    fields = {"width": WIDTH, "depth": DEPTH, "heads": 4, "mlp_dim": MLP, "projection.dim": SPACE}
    fields = {f"model.{k}": v for k, v in fields.items()} | {"pretrain.batch_size": BATCH, "finetune.batch_size": BATCH}
    fields |= {"model.remat": remat}
    fields |= {"study.eval_batch_size": BATCH, "study.export": "", "study.methods": ("finetune",)}
    for key, value in {**fields, **changes}.items():
        configs.set_field(config, key, value)
    return config


@functools.cache
def planned(only="pretrain", **changes):
    """The facts of one step."""
    (step,) = make_plan(make(**changes), at_hand(), only, told=lambda _: None)["steps"]
    return step


def test_flops_by_hand():
    """Forward, and twice that backward, but for the gradient by the inputs; attention; B x B logits."""
    blocks = DEPTH * (2 * LENGTH * (4 * WIDTH**2 + 2 * WIDTH * MLP) + 4 * LENGTH**2 * WIDTH)
    tower = 2 * (2 * LENGTH * DIM * WIDTH) + 3 * (blocks + 2 * WIDTH * SPACE)
    expected = len(NAMES) * tower + 3 * 2 * BATCH * SPACE
    found = planned()["flops"]
    assert found["per_example"] == pytest.approx(expected, rel=0.05)
    assert found["per_device"] == found["per_example"] * BATCH / len(jax.devices())


def test_what_is_computed_again_is_no_useful_work():
    plain, again = planned()["flops"], planned(remat="full")["flops"]
    assert again["per_example"] == plain["per_example"]
    assert plain["executed_per_device"] == plain["per_device"]
    assert 1.25 < again["executed_per_device"] / again["per_device"] < 1.4  # forward twice, backward twice: 4 to 3


def test_state_by_hand():
    """The compiler's arguments without the batch: parameters, two moments of those that train."""
    layer = 4 * WIDTH**2 + 2 * WIDTH * MLP + (3 + 1 + 1 + 4) * WIDTH + MLP
    tower = DIM * WIDTH + WIDTH + LENGTH * WIDTH + DEPTH * layer + 2 * WIDTH + WIDTH * SPACE
    trained, head = len(NAMES) * tower, SPACE * CLASSES + CLASSES
    memory = planned()["memory"]
    kinds = memory["by_kind"]
    assert kinds["parameters"] == 4 * (trained + head)
    assert kinds["moments"] == pytest.approx(2 * 4 * trained, rel=0.01)
    state = memory["arguments"] - kinds["batch"]
    assert state == pytest.approx(4 * (3 * trained + head), rel=0.01)
    assert memory["total"] >= memory["arguments"] and memory["fits"] is True


@pytest.mark.parametrize("sizes", [{"mesh.fsdp": 8}, {"mesh.fsdp": 2, "mesh.tensor": 4}])
def test_sharded_state_is_what_lies_on_a_device(sizes):
    config = make(**sizes)
    mesh, step = make_mesh(config.mesh), next(s for s in steps(Study(config, ".")) if "pretrain" in s.name)
    state, first = step.plan.start(mesh), jax.devices()[0]
    lies = sum(s.data.nbytes for x in jax.tree.leaves(state) for s in x.addressable_shards if s.device == first)
    kinds = step.make(mesh, BATCH).kinds
    assert sum(bytes_per_device(tree) for kind, tree in kinds.items() if kind != "batch") == lies
    assert lies < bytes_in_all(state)


def test_checkpoints_hold_the_state_and_the_best_parameters():
    mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    for step in (s for s in steps(Study(make(), ".")) if s.plan):
        state = step.plan.start(mesh)
        best = bytes_in_all(state.params) if "finetune" in step.name else 0
        assert facts._checkpoint(step, step.make(mesh, BATCH)) == bytes_in_all(state) + best


def test_gradients_are_summed_over_the_devices():
    """Data parallel training sends each trained parameter once."""
    found = planned()
    reduced = sum(c["bytes"] for c in found["collectives"] if c["kind"] == "all-reduce")
    trained = (found["memory"]["by_kind"]["moments"] - 8) / 2
    assert reduced == pytest.approx(trained, rel=0.05)


def test_the_largest_batch_of_an_affine_memory(monkeypatch):
    target, mesh = at_hand(), make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    step = Step("x", 64, lambda mesh, size: size)
    monkeypatch.setattr(
        facts, "compile_call", lambda size, _: Compiled(0.0, 0.0, {"total": 1000 + 10 * size}, object(), None)
    )
    assert facts._largest_batch(step, 1640, mesh, type(target)("x", target.devices, 2999.0, None)) == 192
    assert facts._largest_batch(step, 1640, mesh, type(target)("x", target.devices, 1500.0, None)) == 48
    assert facts._largest_batch(step, 1640, mesh, type(target)("x", target.devices, 900.0, None)) == 0


def test_a_loss_on_its_own_and_an_unknown_step():
    found = make_plan(make(), at_hand(), "loss/", told=lambda _: None)["steps"]
    assert [s["name"] for s in found] == ["loss/plain", "loss/chunked", "loss/ring"]
    assert len({s["flops"]["per_example"] for s in found}) == 1
    with pytest.raises(UserError, match="no step is called 'pretrian'"):
        make_plan(make(), at_hand(), "pretrian")


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="batch size 12 is not divisible"):
        make_plan(make(**{"pretrain.batch_size": 12}), at_hand(), "pretrain")


def test_tokens_and_advice():
    config = make()
    made = {"tokens": {"video": 197, "text": 128}, "steps": [], "tpu": True}
    found = advise(configs.to_dict(config), made)
    assert waste(197) == pytest.approx(59 / 256) and waste(128) == 0
    assert len(found) == 2 and "video: 197 tokens fill 256 rows" in found[0] and "bfloat16" in found[1]


def test_the_command_prints_and_saves(tmp_path):
    command = ("-m", "mmr_jax", "plan", "--config=configs/quickstart.py", "--only=pretrain")
    process = toy.run(*command, f"--output={tmp_path}")
    text, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    made = json.loads((tmp_path / "plan.json").read_text())
    assert [s["name"] for s in made["steps"]] == ["seed0/audio+text+video/pretrain"]
    assert made["steps"][0]["cycles"] is None and made["tokens"] == {"audio": 16, "text": 8, "video": 16}
    assert "none" in (tmp_path / "plan.md").read_text() and "share of peak" in text
    console = Console(file=io.StringIO(), width=200)
    print_plan(made, console)
    write_plan(made, tmp_path / "again")
    assert "memory per device" in console.file.getvalue()
    assert (tmp_path / "again/plan.md").read_text() == (tmp_path / "plan.md").read_text()
