"""A run that is killed or interrupted and started again equals one that was left alone, bit for bit."""

import json
import signal
import time

import jax
import numpy as np
import toy

from mmr_jax.train.checkpoint import examine, load_params


def finished(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err[-3000:]
    return out


def last_state(directory):
    """The state and the best parameters in the last checkpoint of a run, as host arrays."""
    return jax.tree.leaves(examine(directory / "checkpoints" / "20")[0])


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    finished(toy.run("tests/resume_fit.py", tmp_path, 13), -signal.SIGKILL)
    lines = (tmp_path / "parts/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 12  # rows of steps after the checkpoint at 10 are there, and must go
    with (tmp_path / "parts/metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "loss": 0.')
    name, resumed, _ = finished(toy.run("tests/resume_fit.py", tmp_path, 0)).split()[-3:]
    assert name == "parts" and resumed in ("5", "10")  # the save of step 10 may have been under way
    whole, parts = ((tmp_path / d / "metrics.jsonl").read_text() for d in ("whole", "parts"))
    assert whole == parts and len(whole.splitlines()) == 20
    toy.assert_same(load_params(tmp_path / "parts/params"), load_params(tmp_path / "whole/params"))
    states = [last_state(tmp_path / d) for d in ("whole", "parts")]
    assert len(states[0]) > 50
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)


CHANGES = {
    "pretrain.steps": 150,
    "pretrain.checkpoint_every": 10,
    "study.methods": "('finetune',)",
    "study.train_subsets": "('text',)",
    "study.save_predictions": "False",
    "study.export": "",
}


def command(workdir):
    flags = [f"--config.{key}={value}" for key, value in CHANGES.items()]
    return toy.run("-m", "mmr_jax", "run", "--config=tests/toy.py:two", f"--workdir={workdir}", *flags)


def wait_for(path, process, rows):
    """Until a metrics file has so many rows."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if path() and path().read_text().count("\n") >= rows:
            return
        time.sleep(0.002)
    raise AssertionError(process.communicate()[1][-3000:])


def test_an_interrupted_study_exits_with_75_and_resumes(tmp_path):
    finished(command(tmp_path / "whole"))
    process = command(tmp_path / "parts")
    wait_for(lambda: next(iter((tmp_path / "parts").rglob("metrics.jsonl")), None), process, 12)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 75, err[-3000:]
    assert err.strip().splitlines()[-1].startswith("mmr: interrupted at seed0/audio+text/pretrain, step ")
    assert "resumes from step" in finished(command(tmp_path / "parts"))
    stages = {p.parent.relative_to(tmp_path / "whole") for p in (tmp_path / "whole/stages").rglob("done.json")}
    assert len(stages) == 5  # pretrain, retrieve, probe, finetune/text, evaluate/finetune
    for stage in stages:
        whole, parts = tmp_path / "whole" / stage, tmp_path / "parts" / stage
        records = [json.loads((d / "done.json").read_text()) for d in (whole, parts)]
        for record in records:
            for differs in ("seconds", "resumed_from", "goodput", "blake2b"):
                record.pop(differs, None)
        assert records[0] == records[1]
        if (whole / "metrics.jsonl").exists():
            assert (whole / "metrics.jsonl").read_text() == (parts / "metrics.jsonl").read_text()
        for params in ("params", "heads"):
            if (whole / params).exists():
                toy.assert_same(load_params(parts / params), load_params(whole / params))
    assert (tmp_path / "parts/report/index.html").exists()
