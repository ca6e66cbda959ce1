"""What is restored is what was saved, or an older step that is, or nothing."""

import json
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding, PartitionSpec

from mmr_jax.errors import UserError
from mmr_jax.train import digests
from mmr_jax.train.checkpoint import Checkpoints, examine, load_params, save_params


def state(scale=1.0, mesh=None, spec=("fsdp",)):
    """A tree like that of a run, the kernel of 8 rows sharded."""
    rng = np.random.default_rng(3)
    kernel = (rng.normal(size=(8, 500)) * scale).astype(np.float32)
    moments = (rng.normal(size=(8, 500)) * scale).astype(jnp.bfloat16)
    mesh = mesh or toy.mesh()
    put = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))  # noqa: E731
    return {"step": put(np.int32(7)), "params": {"kernel": put(kernel, *spec)}, "opt": ({"mu": put(moments)}, ())}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with steps 5 and 10, and what they hold."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder / "c") as checkpoints:
        for step, scale in ((5, 1.0), (10, 2.0)):
            checkpoints.save(step, state(scale))
    return folder / "c"


@pytest.fixture
def directory(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "c")


def restored(directory, target=None):
    with Checkpoints(directory) as checkpoints:
        return checkpoints.restore(target or state())


def same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def flip(file, at=0.5):
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    file.write_bytes(bytes(data))


def payload(step):
    return max((f for f in step.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


DAMAGE = {
    "flip at the start": lambda step: flip(payload(step), 0.0),
    "flip in the payload": lambda step: flip(payload(step), 0.5),
    "flip near the end": lambda step: flip(payload(step), 0.95),
    "flip in the digests": lambda step: flip(step / "digests-0.json"),
    "truncated payload": lambda step: payload(step).write_bytes(payload(step).read_bytes()[:1000]),
    "missing payload": lambda step: payload(step).unlink(),
    "missing manifest": lambda step: (step / "manifest.ocdbt").unlink(),
    "missing metadata": lambda step: (step / "_METADATA").unlink(),
    "missing digests": lambda step: (step / "digests-0.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_step_is_set_aside_and_the_one_before_is_taken(directory, damage, capfd):
    DAMAGE[damage](directory / "10")
    step, found = restored(directory)
    assert step == 5
    same(found, state(1.0))
    lines = capfd.readouterr().out.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"checkpoint 10 in {directory} is damaged: ")
    assert [p.name[:11] for p in directory.glob("damaged-*")] == ["damaged-10-"] and not (directory / "10").exists()
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(10, state(2.0))  # its place is free
    assert restored(directory)[0] == 10


def test_intact_arrays_are_restored_whatever_else_is_damaged(directory):
    notes = directory / "10/array_metadatas/process_0"
    notes.write_text(notes.read_text().replace("write_shape", "write_shapf"))
    step, found = restored(directory, state(5.0, toy.mesh(fsdp=2)))
    assert step == 10
    same(found, state(2.0))


def test_intact_steps_come_back_bit_for_bit(directory):
    step, found = restored(directory)
    assert step == 10
    same(found, state(2.0))
    same(examine(directory / "10")[0], jax.tree.map(np.asarray, state(2.0)))


def test_what_orbax_takes_for_a_step_is_none(directory):
    (directory / "99").mkdir()
    (directory / "12.orbax-checkpoint-tmp").mkdir()
    assert restored(directory)[0] == 10
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(99, state(3.0))
    assert restored(directory)[0] == 99
    assert not (directory / "12.orbax-checkpoint-tmp").exists()


def test_without_an_intact_step_the_run_stops_every_time(directory):
    for step in ("5", "10"):
        flip(payload(directory / step))
    for _ in range(2):
        with pytest.raises(UserError, match=r"no intact checkpoint \(damaged-10-.*damaged-5-.*delete it"):
            restored(directory)


def test_a_save_that_was_cut_off_never_was(directory):
    """Orbax had committed, a kill came before the digests were written."""
    (directory / "10/digests-0.json").unlink()
    (directory / "10.saving").touch()
    assert restored(directory)[0] == 5
    shutil.rmtree(directory / "5")
    assert restored(directory) is None
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(10, state())
    assert restored(directory)[0] == 10 and not list(directory.glob("*.saving"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "params": {"kernel": s["params"]["kernel"].astype(jnp.bfloat16)}}, "float32.*bfloat16"),
        (lambda s: {**s, "params": {"kernel": s["params"]["kernel"][:, :9]}}, r"params/kernel .*\[8, 500\].*\[8, 9\]"),
        (lambda s: {**s, "params": {"other": s["params"]["kernel"]}}, "params/kernel is .* there and absent here"),
    ],
)
def test_another_dtype_shape_or_tree_is_refused_and_nothing_is_set_aside(directory, change, message):
    with pytest.raises(UserError, match=f"does not fit this run: .*{message}"):
        restored(directory, change(state()))
    assert restored(directory)[0] == 10


@pytest.mark.parametrize(("fsdp", "now"), [(1, 8), (8, 2), (8, 1)])
def test_another_number_of_devices(tmp_path, fsdp, now):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(mesh=toy.mesh(fsdp=fsdp)))
    made = json.loads((tmp_path / "1/digests-0.json").read_text())["arrays"]["params/kernel"]
    assert len(made["shards"]) == fsdp
    target = state(5.0, toy.mesh(fsdp=now))
    _, found = restored(tmp_path, target)
    same(found, state())
    assert found["params"]["kernel"].sharding == target["params"]["kernel"].sharding


def test_what_is_saved_is_the_state_at_the_call(tmp_path):
    """The step that donates its buffers runs while the save is under way."""
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 + 9, s), donate_argnums=0)
    jax.block_until_ready(advance(state()))
    with Checkpoints(tmp_path, keep_last=9) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step))
            jax.block_until_ready(advance(state(step)))
            now = advance(state(step))
            for _ in range(5):
                now = advance(now)
    for step in (1, 2, 3):
        same(examine(tmp_path / str(step))[0], jax.tree.map(np.asarray, state(step)))


def test_how_many_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep_last=2, keep_every=4) as checkpoints:
        for step in range(1, 10):
            checkpoints.save(step, {"a": jnp.float32(step)})
    assert checkpoints.steps() == [4, 8, 9]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4", "8", "9"]


def test_a_full_disk_is_one_line_at_the_next_save_and_costs_nothing(directory):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(directory)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))
    try:
        checkpoints.save(15, state(4.0))
        with pytest.raises((UserError, OSError), match="15.* was not written: File too large|File too large"):
            checkpoints.save(20, state(5.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    checkpoints.close()
    assert sorted(p.name for p in directory.iterdir()) == ["10", "5"]
    same(restored(directory)[1], state(2.0))


def test_damaged_parameters_are_refused(tmp_path):
    params = {"a": {"kernel": np.random.default_rng(0).normal(size=(60, 50)).astype(np.float32)}}
    for damage, message in ((flip, "is damaged: "), (lambda f: f.unlink(), "is damaged: ")):
        save_params(tmp_path / "stage/params", params)
        toy.assert_same(load_params(tmp_path / "stage/params"), params)
        damage(payload(tmp_path / "stage/params"))
        with pytest.raises(UserError, match=message + f".*; delete {tmp_path}/stage and run"):
            load_params(tmp_path / "stage/params")
    save_params(tmp_path / "p", params)
    like = {"a": {"kernel": jax.ShapeDtypeStruct((60, 50), jnp.bfloat16)}}
    with pytest.raises(UserError, match="another model .*a/kernel is float32 .* there and bfloat16"):
        load_params(tmp_path / "p", like)


def test_a_digest_depends_on_path_dtype_shape_and_bytes():
    base = np.arange(6, dtype=np.float32).reshape(2, 3)
    trees = [{"a": base}, {"b": base}, {"a": base.reshape(3, 2)}, {"a": base.view(np.int32)}, {"a": base[::-1]}]
    found = [next(iter(e.shards.values())) for t in trees for e in digests.record(digests.pieces(t)).values()]
    assert len(set(found)) == len(trees)
    assert found[0] == next(iter(digests.record(digests.pieces({"a": base.copy()}))["a"].shards.values()))
