"""Faults and their ends: kills inside a save, two runs on one workdir, signals, what cannot be written, NaN.

Damaged checkpoints are in train/test_checkpoint.py, bit-for-bit resuming in test_resume.py, all of it at random and in
greater number in benchmarks/faults.py.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import faults_save
import numpy as np
import pytest
import toy

from mmr_jax.cli import verify as verify_command
from mmr_jax.data.pipeline import batch_at
from mmr_jax.data.unreadable import Tally
from mmr_jax.errors import Diverged, Interrupted, UserError
from mmr_jax.objectives import Supervised
from mmr_jax.seeds import fold_seed
from mmr_jax.study import finish, read_record
from mmr_jax.train import interrupt
from mmr_jax.train.checkpoint import Checkpoints, save_params
from mmr_jax.train.ledger import Ledger
from mmr_jax.train.loop import Job, fit
from mmr_jax.verify import verify
from mmr_jax.workdir_lock import locked

TEXT = {"text": toy.MODALITIES["text"]}


def end_of(process, timeout=120):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def test_a_kill_anywhere_in_a_save_leaves_an_intact_step(tmp_path):
    running = {p: toy.run("tests/faults_save.py", tmp_path / p, p) for p in faults_save.POINTS}
    newest = {}
    for point, process in running.items():
        assert end_of(process)[0] == -signal.SIGKILL, point
        with Checkpoints(tmp_path / point) as checkpoints:
            newest[point], found = checkpoints.restore(faults_save.state(0))
            toy.assert_same(found, faults_save.state(newest[point]))
            checkpoints.save(4, faults_save.state(4))
        assert not [p.name for p in (tmp_path / point).iterdir() if not p.name.isdecimal()]
    assert newest == {"copies taken": 2, "orbax waited for": 2, "digests": 2, "old steps": 3, "deletion": 3}


def test_a_workdir_is_for_one_process(tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match=f"is in use by process {os.getpid()} on .*: wait for it"):
        locked(tmp_path).__enter__()
    code = f"import time; from mmr_jax.workdir_lock import locked; held = locked({str(tmp_path)!r}); held.__enter__()"
    code += "; print(1, flush=True); time.sleep(99)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(UserError, match=f"process {process.pid} on"):
        locked(tmp_path).__enter__()
    process.kill()
    process.wait()
    process.stdout.close()
    with locked(tmp_path):  # a killed process holds nothing
        pass


def test_a_workdir_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError), locked(tmp_path / "w"):
        pass
    tmp_path.chmod(0o700)


DEAF = """
import hashlib, sys
from mmr_jax.train import interrupt
interrupt.GRACE_S = 0.3
with interrupt.handled(ends_process=True):
    interrupt.FLAG.holding = {holding}
    print(1, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})  # as a compilation: no bytecode of the main thread runs
    interrupt.FLAG.holding = False
    interrupt.check("the end")
"""


@pytest.mark.parametrize(
    ("holding", "signals", "code"),
    [(False, 1, 75), (True, 1, 1), (True, 2, 128 + signal.SIGTERM)],
    ids=["nothing to save", "something to save", "second signal"],
)
def test_a_signal_while_no_python_runs(holding, signals, code):
    """With nothing to save the process ends at once; else the main thread comes to its check (Interrupted)."""
    rounds = 1_500_000 if code == 1 else 400_000_000
    process = toy.run("-c", DEAF.format(holding=holding, rounds=rounds))
    process.stdout.readline()
    begun = time.monotonic()
    for _ in range(signals):
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    found, _, err = end_of(process)
    assert found == code and time.monotonic() - begun < 60
    if code == 75:
        assert err == f"mmr: interrupted after its start, with nothing to save. {interrupt.REPEAT}\n"
    if code == 1:
        assert "Interrupted: interrupted at the end" in err


def supervised(directory, weight, **recipe):
    model = toy.model(modalities=TEXT)
    rows = {**toy.batch(20, modalities=TEXT), "weight": np.full(20, weight, np.float32)}
    settings = {"batch_size": 4, "log_every": 1, "validate_every": 0, **recipe}
    parts = ({"labelled": toy.Batches(rows)}, toy.parameters(model))
    return Job("job", 0, directory, Supervised(model, ("text",)), toy.recipe(**settings), *parts)


def test_bad_steps_are_counted_across_a_restart(tmp_path):
    """Five in a row end the run at step 5, also when it goes on from the checkpoint of step 3."""
    for _ in range(2):
        with pytest.raises(Diverged, match="5 steps in a row, the last is step 5;"):
            fit(supervised(tmp_path, np.nan, steps=20, checkpoint_every=3), toy.mesh())
        assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["3"]


def test_a_signal_in_a_validation_saves_the_step_and_validates_it_again(tmp_path):
    def validated(directory, stop_at=0):
        made, calls = supervised(directory, 1.0, steps=8, validate_every=2), []

        def validate(params):
            calls.append(float(params["head"]["kernel"].sum()))
            if len(calls) == stop_at:
                signal.raise_signal(signal.SIGTERM)
                interrupt.check("a validation")
            return calls[-1]

        made.validate = validate
        return made, calls

    whole, scores = validated(tmp_path / "whole")
    expected = fit(whole, toy.mesh())
    parts, before = validated(tmp_path / "parts", stop_at=2)
    with interrupt.handled(), pytest.raises(Interrupted, match="job, step 4, which is saved"):
        fit(parts, toy.mesh())
    again, after = validated(tmp_path / "parts")
    found = fit(again, toy.mesh())
    assert found.resumed_from == 4 and before + after[1:] == scores and after[0] == scores[1]
    assert (found.best_step, found.best_score) == (expected.best_step, expected.best_score)
    toy.assert_same(found.params, expected.params)
    assert (tmp_path / "parts/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()


class Lossy(toy.Batches):
    """Every third record cannot be read; of record `deadly` the reading fails."""

    def __init__(self, rows, deadly):
        super().__init__(rows)
        self.tally, self.deadly = Tally(1.0), deadly

    def take(self, indices):
        if self.deadly in indices:
            raise UserError("no such file")
        return {**super().take(indices), "unreadable": np.asarray(indices) % 3 == 0}


def test_what_cannot_be_read_is_counted_on_after_a_restart(tmp_path):
    def lossy(name, deadly=-1):
        job = supervised(tmp_path / name, 1.0, steps=8, checkpoint_every=3)
        source = Lossy(job.sources["labelled"].rows, deadly)
        return source, dataclasses.replace(job, sources={"labelled": source})

    source, job = lossy("whole")
    fit(job, toy.mesh())
    batches = [batch_at(source, 4, fold_seed(0, "job", "labelled"), step) for step in range(8)]
    expected = np.cumsum([(batch["id"] % 3 == 0).sum() for batch in batches]).tolist()
    rows = (tmp_path / "whole/metrics.jsonl").read_text()
    assert [json.loads(row).get("unreadable", 0) for row in rows.splitlines()] == expected
    assert source.tally.counts == (32, expected[-1])
    with pytest.raises(UserError, match="no such file"):
        fit(lossy("parts", deadly=batches[4]["id"][0])[1], toy.mesh())  # the first four are the rest of its epoch
    source, job = lossy("parts")
    assert fit(job, toy.mesh()).resumed_from == 3
    assert (tmp_path / "parts/metrics.jsonl").read_text() == rows
    assert source.tally.counts == (32, expected[-1])


def test_seconds_add_up_over_sessions(tmp_path):
    fit(supervised(tmp_path / "a", 1.0, steps=7, checkpoint_every=3), toy.mesh())
    (first,) = json.loads((tmp_path / "a/ledger.json").read_text())
    assert not first["open"] and first["spent"].keys() == {"compile", "restore", "data", "step", "save"}
    fit(supervised(tmp_path / "a", 1.0, steps=9, checkpoint_every=3), toy.mesh())
    with Ledger(tmp_path / "a") as ledger:
        seconds, spent = ledger.total()
        sessions = json.loads((tmp_path / "a/ledger.json").read_text())
    assert seconds == pytest.approx(sum(s["seconds"] for s in sessions)) and len(sessions) == 3
    assert sum(spent.values()) == pytest.approx(seconds, abs=1e-6)
    kept = first["saved"]["6"]["seconds"]
    assert spent["lost"] == pytest.approx(first["seconds"] - kept) and 0 < spent["lost"] < first["seconds"]


def test_a_killed_session_counts_until_its_last_row_of_metrics(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.saved(10)
    (session,) = json.loads((tmp_path / "ledger.json").read_text())
    session |= {"open": True, "clock": time.time() - 100}
    (tmp_path / "ledger.json").write_text(json.dumps([session]))
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with Ledger(tmp_path) as ledger:
        ledger.resumed(10)
        seconds, spent = ledger.total()
    assert 99 < spent["lost"] <= seconds < 110


def test_verify_finds_every_kind_of_damage(tmp_path, monkeypatch, capsys):
    stage = tmp_path / "stages/seed0/pretrain-ab12"
    params = {"kernel": np.random.default_rng(0).normal(size=4000).astype(np.float32)}
    save_params(stage / "params", params)
    with Checkpoints(stage / "checkpoints") as checkpoints:
        checkpoints.save(3, params)
    (stage / "checkpoints/damaged-2-20250101-000000").mkdir()
    (stage / "checkpoints/damaged-2-20250101-000000/_CHECKPOINT_METADATA").touch()
    np.savez(stage / "scores.npz", **params)
    done = tmp_path / "stages/seed0/evaluate-cd34/done.json"
    done.parent.mkdir()
    finish(done.parent, {"score": 0.25})
    found = verify(tmp_path)
    assert [(i.name.split("/", 2)[2], i.status) for i in found] == [
        ("evaluate-cd34/done.json", "intact"),
        ("pretrain-ab12/checkpoints/3", "intact"),
        ("pretrain-ab12/checkpoints/damaged-2-20250101-000000", "set aside"),
        ("pretrain-ab12/params", "intact"),
        ("pretrain-ab12/scores.npz", "intact"),
    ]
    done.write_text(done.read_text().replace("0.25", "0.35"))
    with pytest.raises(UserError, match="done.json is damaged: delete"):
        read_record(done)
    for folder in ("params", "checkpoints/3", "scores.npz"):
        files = [f for f in (stage / folder).rglob("*") if f.is_file()] or [stage / folder]
        file = max(files, key=lambda f: f.stat().st_size)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
    assert [i.status for i in verify(tmp_path)] == ["damaged", "damaged", "set aside", "damaged", "damaged"]
    monkeypatch.setattr(verify_command, "WORKDIR", type("Flag", (), {"value": str(tmp_path)}))
    with pytest.raises(UserError, match="4 of 5 are damaged, the first is stages/seed0/evaluate-cd34/done.json"):
        verify_command.run()
    assert capsys.readouterr().out.count("damaged  ") == 4
    with pytest.raises(UserError, match="holds no study"):
        verify(tmp_path / "stages")
