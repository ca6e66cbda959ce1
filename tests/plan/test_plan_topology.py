"""Plans for TPUs that are not there: in a process of their own, and with the real compiler where it is installed."""

import importlib.util
import subprocess
import sys

import pytest
import toy

from mmr_jax import config as configs
from mmr_jax.errors import UserError
from mmr_jax.plan import child
from mmr_jax.plan.chips import CHIPS
from mmr_jax.plan.cycles import environment

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")

ISOLATED = """
import importlib.util, subprocess, types
from pathlib import Path
from jax._src import xla_bridge
from mmr_jax import config as configs
from mmr_jax.files import write_json
from mmr_jax.plan import child
from mmr_jax.plan.chips import CHIPS
from mmr_jax.plan.cycles import environment

def run(command, env, **options):
    seen.append(env)
    write_json(Path(command[-1]) / "plan.json", {"made": True})
    return types.SimpleNamespace(returncode=0)

seen, child.importlib.util.find_spec, child.subprocess.run = [], lambda name: True, run
assert child.plan_topology(configs.to_dict(configs.load("tests/toy.py")), "v5e-4") == {"made": True}
assert {k: seen[0][k] for k in ("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD")} == {
    "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
assert not xla_bridge.backends_are_initialized()
"""


def test_the_one_that_asks_starts_no_backend():
    process = toy.run("-c", ISOLATED)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs libtpu.*\[plan\]"):
        child.plan_topology(configs.to_dict(toy.get_config()), "v5e-4")


def test_an_unknown_slice_is_one_line():
    process = toy.run("-m", "mmr_jax", "plan", "--config=tests/toy.py", "--topology=v5e-65")
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.count("\n")) == (2, 1) and "did you mean 'v5e-64'" in err


def test_a_child_that_dies_is_told_of(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    dies = [sys.executable, "-c", "import os; os.abort()"]
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: run(dies, **options))
    with pytest.raises(UserError, match="ended with code -6"):
        child.plan_topology(configs.to_dict(toy.get_config()), "v5e-4")


@needs_libtpu
def test_a_small_study_on_v5e():
    config = configs.to_dict(configs.load("tests/toy.py", {"model.dtype": "bfloat16"}))
    plan = child.plan_topology(config, "v5e-4")
    steps = {s["name"].split("/")[-1]: s for s in plan["steps"]}
    step = steps["pretrain"]
    assert plan["target"]["devices"] == 4 and plan["target"]["hosts"] == 1
    assert step["cycles"]["total"] > 0 and 0 < step["cycles"]["share_of_peak"] < 1
    assert {c["kind"] for c in step["collectives"]} >= {"all-reduce"}
    assert step["memory"]["fits"] and steps["evaluate"]["cycles"]["total"] > 0


PRODUCT = """
import jax, jax.numpy as jnp
from mmr_jax.plan.cycles import count_cycles
from mmr_jax.plan.hlo import Program
from mmr_jax.plan.target import topology

for name in NAMES:
    target = topology(name)
    x = jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16, sharding=jax.sharding.SingleDeviceSharding(target.devices[0]))
    text = jax.jit(jnp.matmul).trace(x, x).lower().compile().as_text()
    share = 2 * 4096**3 / count_cycles(Program(text)).total / target.chip.flop_per_cycle
    assert len(target.devices) == target.chips * target.chip.devices == 4 * target.chip.devices, name
    assert 0.75 < share < 1, (name, share)
"""


@needs_libtpu
def test_the_table_and_the_compiler_agree_on_a_large_product():
    """A cycle holds as many FLOP as the compiler reckons with; devices are counted as jax counts them."""
    script = PRODUCT.replace("NAMES", repr([f"{name}-{4 * chip.cores}" for name, chip in CHIPS.items()]))
    ended = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


MESHES = """
from jax.experimental import topologies
from mmr_jax.train.sharding import host_rows, make_mesh

two = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4", num_slices=2).devices
mesh = make_mesh({"data": 4, "fsdp": 4, "tensor": 1}, two)
assert [{d.slice_index for d in row.ravel()} for row in mesh.devices] == [{0}, {0}, {1}, {1}]
try:
    make_mesh({"data": 1, "fsdp": 16, "tensor": 1}, two)
except Exception as error:
    assert "mesh.data=1 is not divisible by the 2 slices" in str(error), error
else:
    raise AssertionError("fsdp over two slices was not refused")

four = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices
mesh = make_mesh({"data": 16, "fsdp": 1, "tensor": 1}, four)
line = [d.coords for d in mesh.devices.ravel()]
hops = [sum(abs(a - b) for a, b in zip(x, y)) for x, y in zip(line, line[1:])]
assert max(hops) == 1, hops  # neighbours in the mesh are neighbours in the machine
rows = [host_rows(32, mesh, process).tolist() for process in range(4)]
assert sorted(sum(rows, [])) == list(range(32)) and all(len(r) == 8 for r in rows)
assert any(r != list(range(r[0], r[0] + 8)) for r in rows)  # and so the rows of a host need not be contiguous
"""


@needs_libtpu
def test_meshes_follow_the_slices_and_the_torus():
    ended = subprocess.run([sys.executable, "-c", MESHES], env=environment(""), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
