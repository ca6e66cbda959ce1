"""Stages that run apart: their list, what each is refused for, who may be at work beside whom."""

import csv
import os
import re
import shutil
import sys
import threading

import pytest
import toy
from launching import Fakes

from mmr_jax import workdir_lock
from mmr_jax.cli.stage import _stage
from mmr_jax.cli.stages import _print_table
from mmr_jax.errors import UserError
from mmr_jax.study import Study
from mmr_jax.workdir_lock import hold, locked

SMALL = ["--config=tests/toy.py:two", "--config.study.methods=('linear_probe','finetune')",
         "--config.study.train_subsets=('audio',)", "--config.study.export=finetune"]  # fmt: skip
PRETRAIN, PROBE = (f"seed0/audio+text/{name}" for name in ("pretrain", "probe"))

ONCE_INTERRUPTED = """
case "$*" in *--name=*/probe) if mkdir "$here/once" 2>/dev/null; then exit 75; fi ;; esac
exec {python} -m mmr_jax "$@"
"""


def mmr(*arguments):
    """(exit code, stdout, the last line of stderr)"""
    process = toy.run("-m", "mmr_jax", *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err.strip().rpartition("\n")[2]


def listed(*arguments):
    code, out, err = mmr("stages", "--format=tsv", *arguments)
    assert code == 0, err
    return list(csv.DictReader(out.splitlines(), delimiter="\t"))


def test_stages_are_listed_after_those_they_need(capsys):
    rows, before = listed("--config=tests/toy.py:two"), []
    for row in rows:
        assert set(filter(None, row["needs"].split(","))) <= set(before) and row["finished"] == "no"
        before.append(row["name"])
    stages = Study(toy.get_config("two"), "unused").stages()
    assert [(row["name"], row["kind"]) for row in rows] == [(stage.name, stage.kind) for stage in stages]
    _print_table(stages, ["no"] * len(stages))
    table = capsys.readouterr().out
    assert all(stage.name in table for stage in stages)


def test_a_stage_that_cannot_run_is_refused(tmp_path):
    study = Study(toy.get_config("two"), tmp_path)
    with pytest.raises(UserError, match=re.escape(f"no stage is called '{PROBE[:-1]}'; did you mean '{PROBE}'?")):
        _stage(study, PROBE[:-1])
    code, _, err = mmr("stage", *SMALL, f"--workdir={tmp_path}", "--name=seed0/audio+text/evaluate/finetune")
    assert code == 2 and not list(tmp_path.iterdir())
    assert f"needs what is not finished: {PRETRAIN}, {PROBE}, seed0/audio+text/finetune/audio" in err


def test_stages_share_a_workdir_and_mmr_run_does_not(tmp_path):
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True):
        code, _, err = mmr("run", *SMALL, f"--workdir={tmp_path}")
        assert code == 2 and f"{tmp_path} is in use by mmr stage, the last to begin was process" in err
    with locked(tmp_path):
        code, _, err = mmr("stage", *SMALL, f"--workdir={tmp_path}", f"--name={PRETRAIN}")
        assert code == 2 and f"{tmp_path} is in use by process" in err
    stage = next(s for s in Study(toy.get_config("two"), tmp_path).stages() if s.name == PRETRAIN)
    folder = tmp_path / "stages" / f"{PRETRAIN}-{stage.key}"
    with locked(tmp_path, shared=True), locked(folder):
        code, _, err = mmr("stage", *SMALL, f"--workdir={tmp_path}", f"--name={PRETRAIN}")
        assert code == 2 and f"{folder} is in use by process" in err
    assert not (tmp_path / "config.json").exists()


def test_a_lock_whose_folder_its_holder_removes_is_taken_anew(tmp_path, monkeypatch):
    """As mmr prepare does when it ends: the lock that one was given lies in no folder any more."""
    real, path = workdir_lock.fcntl.flock, tmp_path / "work" / "lock"

    def flock(descriptor, how):
        real(descriptor, how)
        monkeypatch.setattr(workdir_lock.fcntl, "flock", real)
        shutil.rmtree(path.parent)

    monkeypatch.setattr(workdir_lock.fcntl, "flock", flock)
    assert hold(path) is not None
    assert path.exists() and hold(path) is None


def test_many_that_want_a_lock_get_it_one_after_another(tmp_path):
    inside, most, refused = [], [], []

    def work():
        for _ in range(50):
            try:
                with locked(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except UserError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert max(most) == 1 and len(most) + len(refused) == 200


@pytest.mark.slow
def test_a_study_fanned_out_equals_mmr_run(tmp_path):
    """Two stages at a time, one of them interrupted; every number that is logged or reported is the same."""
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    assert mmr("run", *SMALL, f"--workdir={whole}")[0] == 0
    fakes = Fakes(tmp_path / "fakes")
    fakes.add("mmr", ONCE_INTERRUPTED.format(python=sys.executable))
    flags = " ".join(f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f)  # as toy.run has them
    code, out, err = fakes.run("fanout.py", "--workers=2", "--", *SMALL, f"--workdir={apart}", XLA_FLAGS=flags)
    assert code == 0 and "0 of 7 stages are finished" in err, (out, err)
    assert [call[-1] for call in fakes.calls].count(f"--name={PROBE}") == 2
    assert {row["finished"] for row in listed(*SMALL, f"--workdir={apart}")} == {"yes"}
    kept = (path for path in whole.rglob("*") if path.suffix == ".npz" or path.name in ("matrix.csv", "metrics.jsonl"))
    files = [path.relative_to(whole) for path in kept]
    assert len(files) == 7  # the matrix, what three stages logged, predictions of two methods, the exported parameters
    assert [file for file in files if (whole / file).read_bytes() != (apart / file).read_bytes()] == []
