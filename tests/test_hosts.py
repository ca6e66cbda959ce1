"""Meshes and hosts change no number: one device, eight, and two processes of four that talk over the loopback."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import hosts_fit
import numpy as np
import pytest
import toy
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax import tree
from mmr_jax.errors import UserError
from mmr_jax.study import Study
from mmr_jax.study_report import collect
from mmr_jax.train import hosts
from mmr_jax.train.checkpoint import Checkpoints, load_params
from mmr_jax.train.loop import fit

SCRIPT = Path(__file__).with_name("hosts_fit.py")
FIT, MMR = (sys.executable, SCRIPT), (sys.executable, "-m", "mmr_jax")
FLAGS = [f for f in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in f]
LAYOUTS = [pytest.param(8, 1, 1, marks=pytest.mark.slow), pytest.param(1, 8, 1, marks=pytest.mark.slow), (2, 2, 2)]

ALONE = ["masd"]  # on two hosts; the others on both in a slow test


def losses(directory):
    rows = [json.loads(line) for line in (Path(directory) / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, hosts_fit.STEPS + 1))
    return np.array([row["loss"] for row in rows])


def two(*arguments, only=(0, 1), command=FIT, apart=lambda number: (), wait=60):
    """The processes `only` of two hosts with four devices each; `apart` gives what each has to itself."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join([*FLAGS, "--xla_force_host_platform_device_count=4"]),
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": "2",
        "MMR_START_TIMEOUT": str(wait),
        "MMR_HEARTBEAT_TIMEOUT": "15",
    }
    return [
        subprocess.Popen(
            [*map(str, (*command, *arguments)), *apart(number)],
            env={**environment, "JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in only
    ]


def ends(processes, timeout=900):
    """[(exit code, what it said)] of the processes; none is left behind."""
    try:
        said = [p.communicate(timeout=timeout) for p in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, out + err) for p, (out, err) in zip(processes, said, strict=True)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Losses of an objective on one device, by its name."""
    folder = tmp_path_factory.mktemp("one")

    @functools.cache
    def found(name):
        fit(hosts_fit.job(name, folder), toy.mesh())
        return losses(folder / name)

    return found


@pytest.mark.parametrize(("data", "fsdp", "tensor"), LAYOUTS)
@pytest.mark.parametrize("name", toy.slow_but(("contrastive",), hosts_fit.OBJECTIVES))
def test_every_mesh_gives_the_losses_of_one_device(one, name, data, fsdp, tensor, tmp_path):
    fit(hosts_fit.job(name, tmp_path), toy.mesh(data, fsdp, tensor))
    np.testing.assert_allclose(losses(tmp_path / name), one(name), rtol=1e-5)
    assert len(set(one(name))) == hosts_fit.STEPS


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of uninterrupted runs on two hosts."""
    return finished(tmp_path_factory.mktemp("two"), 4, 2, 1, *ALONE)


def finished(folder, *arguments):
    for code, said in ends(two(folder, *arguments)):
        assert code == 0, said
    return folder


@pytest.mark.parametrize("name", ALONE)
def test_two_hosts_give_the_losses_of_one_device(one, whole, name):
    np.testing.assert_allclose(losses(whole / name), one(name), rtol=1e-5)


@pytest.mark.slow
def test_two_hosts_give_the_losses_of_one_device_when_parameters_lie_on_both(one, tmp_path):
    finished(tmp_path, 1, 8, 1, *hosts_fit.OBJECTIVES)
    for name in hosts_fit.OBJECTIVES:
        np.testing.assert_allclose(losses(tmp_path / name), one(name), rtol=1e-5)
    # one host alone reads the part that is damaged; both take the step before
    before = load_params(tmp_path / "masd" / "params")
    file = max((tmp_path / "masd/checkpoints/20").glob("ocdbt.process_1/d/*"), key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    data[50:80] = bytes(30)
    file.write_bytes(bytes(data))
    (_, said), _ = ends(two(tmp_path, 1, 8, 1, "masd"))
    assert "checkpoint 20" in said and "set aside" in said and "resumes from step 15" in said
    toy.assert_same(load_params(tmp_path / "masd" / "params"), before)
    np.testing.assert_allclose(losses(tmp_path / "masd"), one("masd"), rtol=1e-5)


@pytest.mark.slow
def test_one_example_on_the_devices_of_two_hosts(one, tmp_path):
    finished(tmp_path, 1, 1, 8, "supervised")
    np.testing.assert_allclose(losses(tmp_path / "supervised"), one("supervised"), rtol=1e-5)


def test_a_signal_to_one_host_makes_both_save_the_same_step_and_go_on(whole, tmp_path):
    processes = two(tmp_path, 4, 2, 1, "masd-slowly")
    wait_for_step(tmp_path / "masd", 7)
    processes[1].send_signal(signal.SIGTERM)
    said = ends(processes)
    saved = Checkpoints(tmp_path / "masd" / "checkpoints").steps()[-1]
    assert 7 <= saved < hosts_fit.STEPS
    assert all(code == 75 and f"step {saved}, which is saved" in text for code, text in said), said
    finished(tmp_path, 4, 2, 1, "masd")
    np.testing.assert_array_equal(losses(tmp_path / "masd"), losses(whole / "masd"))
    toy.assert_same(load_params(tmp_path / "masd" / "params"), load_params(whole / "masd" / "params"))


@pytest.mark.slow
def test_a_dead_host_ends_the_other_and_the_job_goes_on_with_one(one, whole, tmp_path):
    processes = two(tmp_path, 4, 2, 1, "masd-slowly")
    wait_for_step(tmp_path / "masd", 12)
    processes[1].kill()
    begun = time.monotonic()
    (code, said), (killed, _) = ends(processes, timeout=120)  # else it hangs
    assert code not in (0, 2, 3) and killed == -signal.SIGKILL, said
    assert time.monotonic() - begun < 60  # the heartbeat's 15 s and some for a busy machine
    assert Checkpoints(tmp_path / "masd" / "checkpoints").steps()[-1] in (5, 10)
    outcome = fit(hosts_fit.job("masd", tmp_path), toy.mesh(4, 2))  # one process of eight devices
    assert outcome.resumed_from in (5, 10)
    np.testing.assert_allclose(losses(tmp_path / "masd"), one("masd"), rtol=1e-5)
    for path, expected in tree.flatten(load_params(whole / "masd" / "params")).items():
        toy.assert_close(tree.flatten(outcome.params)[path], expected, 1e-3)


def wait_for_step(directory, step, seconds=300):
    path = Path(directory) / "metrics.jsonl"
    for _ in range(10 * seconds):
        if path.exists() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never came to step {step}")


def test_hosts_that_run_different_jobs_are_refused(tmp_path):
    study = ("run", "--config=tests/toy.py:two", f"--workdir={tmp_path / 'study'}")
    for code, said in ends(two(*study, command=MMR, apart=lambda n: [f"--config.pretrain.steps={4 + n}"])):
        assert code == 2 and "pretrain.steps is 4 on host 0 and 5 on host 1" in said
    for code, said in ends(two(*study[:2], command=MMR, apart=lambda n: [f"--workdir={tmp_path / str(n)}"])):
        assert code == 2 and "host 1 does not see what host 0 wrote" in said
    assert not (tmp_path / "study" / "stages").exists()


@pytest.mark.slow
def test_a_study_on_two_hosts_gives_the_scores_of_one(tmp_path):
    changes = {"study.retrieval": 8, "pretrain.objective": "masked", "model.adapter_depth": 1}
    study = ("run", "--config=tests/toy.py:two", *(f"--config.{key}={value}" for key, value in changes.items()))
    for code, said in ends(two(*study, f"--workdir={tmp_path / 'two'}", command=MMR)):
        assert code == 0, said
    alone = Study(configs.load("tests/toy.py:two", changes), tmp_path / "one", Console(quiet=True))
    alone.run()
    results, predictions = collect(alone)
    found, theirs = collect(Study(alone.config, tmp_path / "two"))
    assert len(results) > 10 and len(found) == len(results)
    for mine, other in zip(predictions, theirs, strict=True):
        np.testing.assert_array_equal(mine.ids, other.ids)
        np.testing.assert_allclose(mine.scores, other.scores, atol=1e-4)
    assert list((tmp_path / "two").glob("stages/*/*/reconstruct-*/pictures/*.png"))
    assert list((tmp_path / "two" / "report").glob("*.html"))


@pytest.mark.parametrize("number", [0, 1])
def test_a_host_that_is_alone_says_so_and_ends(number, tmp_path):
    ((code, said),) = ends(two(tmp_path, 4, 2, 1, "masd", only=(number,), wait=4))
    assert code == 2 and f"host {number} of 2" in said and "start the same command on all hosts" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS is ''"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "PROCESSES is 'two'"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "host 2 of 2"),
        ({"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}, "at 'a': .*HOST:PORT"),
    ],
)
def test_variables_that_make_no_sense_are_refused(monkeypatch, given, message):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        hosts.start()
