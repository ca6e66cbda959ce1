"""What the launchers do when a command is interrupted, crashes or loses its machines, with stand-ins for the tools."""

import os
import signal
import sys
import time

import pytest
from launching import COMMAND, MMR, Fakes

GCLOUD = """
case "$*" in
  *describe*) answer states ;;
  *create*) if [ -e "$here/refuses" ]; then exit 1; fi ;;
  *'exec .venv/bin/mmr'*) exit "$(answer codes)" ;;
esac
"""
TPU = ["--name=v5e", "--zone=z"]
QUEUED = [*TPU, "--queued", "--type=v5litepod-256", "--version=v", "--spot"]


@pytest.mark.parametrize("codes, end", [
    ([75] * 5 + [0], 0), ([2, 0], 2), ([3, 0], 3), ([134, 75, 1, 0], 0), ([1, 1, 1, 134, 0], 134), ([0, 0], 0),
], ids=str)  # fmt: skip
def test_local_repeats_as_the_exit_code_asks(codes, end, tmp_path):
    """75 always, crashes three times, 0, 2 and 3 never."""
    fakes = Fakes(tmp_path / "fakes")
    fakes.add("mmr", MMR, codes=codes)
    assert fakes.run("local.sh", "--", *COMMAND)[0] == end
    assert fakes.calls == [["mmr", *COMMAND]] * (codes.index(end) + 1)


SAVES = """
exec {python} -c '
import signal, sys, time
came = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: came.append(number))
print("up", flush=True)
while not came:
    time.sleep(0.05)
time.sleep(0.5)
print(*came)
sys.exit(75)'
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_local_passes_a_signal_on_once_and_ends_with_the_command(number, tmp_path):
    """Also a Ctrl-C, which the terminal sends to all at once: a second signal would cut the saving off."""
    fakes = Fakes(tmp_path / "fakes")
    fakes.add("mmr", SAVES.format(python=sys.executable))
    process = fakes.start("local.sh", "--", *COMMAND, start_new_session=True)
    assert process.stdout.readline() == "up\n"
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out, len(fakes.calls)) == (75, "15\n", 1)


def tpu_vm(fakes, *arguments, **answers):
    """(exit code, what gcloud was asked for: the words after `tpus`, or `launch` and `stop` for what hosts do)"""
    fakes.add("gcloud", GCLOUD, **answers)
    fakes.add("tar")
    code, _, _ = fakes.run("tpu_vm.sh", *arguments, "--", *COMMAND, TPU_WAIT_S="0")
    calls = []
    for call in (call for call in fakes.calls if call[0] == "gcloud"):
        command = next((a for a in call if a.startswith("--command=")), "")
        calls.append("launch" if "exec .venv/bin/mmr" in command else "install" if "tar -x" in command else call[4])
    return code, calls


UP = ["scp", "install", "launch"]


def test_a_preempted_slice_is_queued_again_and_the_command_repeated(tmp_path):
    states = ["", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "SUSPENDING", "SUSPENDED", "", "ACTIVE"]
    code, calls = tpu_vm(Fakes(tmp_path / "fakes"), *QUEUED, states=states, codes=[255, 0])
    first = ["describe", "create", *["describe"] * 3, *UP]
    again = ["describe", "describe", "delete", "describe", "create", "describe", *UP]
    assert (code, calls) == (0, [*first, *again, "delete"])


def test_a_slice_that_is_still_there_is_not_set_up_again(tmp_path):
    code, calls = tpu_vm(Fakes(tmp_path / "fakes"), *QUEUED, "--keep", states=["ACTIVE"] * 2, codes=[75, 2])
    assert (code, calls) == (2, ["describe", *UP, "describe", "launch"])


def test_crashes_and_requests_that_fail_are_repeated_three_times(tmp_path):
    code, calls = tpu_vm(Fakes(tmp_path / "crash"), *QUEUED, states=["ACTIVE"] * 9, codes=[134, 1, 1, 134, 0])
    assert (code, calls.count("launch"), calls.count("delete")) == (134, 4, 0)
    code, calls = tpu_vm(Fakes(tmp_path / "fail"), *QUEUED, states=["", "FAILED"] * 9)
    assert (code, calls.count("create"), calls.count("delete")) == (1, 4, 4)
    code, calls = tpu_vm(Fakes(tmp_path / "refuse"), *QUEUED, states=[""] * 9, refuses=[])
    assert (code, calls) == (1, ["describe", "create"] * 4)


def test_a_slice_of_ones_own_is_waited_for_and_not_deleted(tmp_path):
    code, calls = tpu_vm(Fakes(tmp_path / "a"), *TPU, states=["CREATING", "READY", "READY"], codes=[75, 0])
    assert (code, calls) == (0, ["describe", "describe", *UP, "describe", "launch"])
    code, calls = tpu_vm(Fakes(tmp_path / "b"), *TPU, states=["READY", "PREEMPTED"], codes=[75])
    assert (code, calls) == (75, ["describe", *UP, "describe"])


def test_a_signal_while_a_slice_is_waited_for_ends_the_waiting(tmp_path):
    fakes = Fakes(tmp_path / "fakes")
    fakes.add("gcloud", "echo PROVISIONING\n")
    process = fakes.start("tpu_vm.sh", *QUEUED, "--", *COMMAND)
    assert "v5e is PROVISIONING" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75 and len(fakes.calls) == 1


def test_a_signal_asks_the_hosts_to_save(tmp_path):
    fakes = Fakes(tmp_path / "fakes")
    fakes.add("tar")
    fakes.add("gcloud", 'case "$*" in *describe*) echo ACTIVE ;; *exec*) echo up; exec sleep 60 ;; esac\n')
    process = fakes.start("tpu_vm.sh", *QUEUED, "--", *COMMAND)
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    (command,) = [a.removeprefix("--command=") for a in fakes.calls[-1] if a.startswith("--command=")]
    assert command.startswith("pkill -TERM -x mmr; while pgrep -x mmr")


@pytest.mark.parametrize("codes, end, requeued", [
    ([0], 0, 0), ([2], 2, 0), ([3], 3, 0), ([75], 75, 1), ([134], 134, 1), ([1] * 5, 1, 3), ([75] * 5, 75, 5),
], ids=str)  # fmt: skip
def test_slurm_requeues_as_the_exit_code_asks(codes, end, requeued, tmp_path):
    """The job is begun anew by SLURM, so the crashes are counted in a file."""
    fakes = Fakes(tmp_path / "fakes")
    fakes.add("srun", MMR, codes=codes)
    fakes.add("scontrol")
    for _ in codes:
        assert job(fakes).wait() == end
    assert [call for call in fakes.calls if call[0] == "scontrol"] == [["scontrol", "requeue", "7"]] * requeued
    steps = [call for call in fakes.calls if call[0] == "srun"]
    assert steps == [["srun", "--kill-on-bad-exit=0", "--wait=300", "mmr", *COMMAND]] * len(codes)


def test_a_cancelled_job_is_not_requeued(tmp_path):
    fakes = Fakes(tmp_path / "fakes")
    fakes.add("srun", "echo up >&2; sleep 1; exit 75\n")
    fakes.add("scontrol")
    process = job(fakes)
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)  # what scancel sends to the script; the processes get theirs
    assert process.wait() == 75 and [call[0] for call in fakes.calls] == ["srun"]


def job(fakes):
    return fakes.start("slurm_job.sh", *COMMAND, SLURM_JOB_ID="7", cwd=fakes.folder, MMR="mmr")


STAGES = """name\tkind\tneeds\tfinished
a\tpretrain\t\tyes
b\ttrain\ta\tno
c\ttrain\ta,b\tno
d\ttrain\ta\tno
e\tevaluate\tc,d\tno
"""
STUDY = ["--config=configs/x.py", "--workdir=WORKDIR", "--config.seeds=(0,1)"]
FANOUT = f"""
case "$1 $*" in
  stages*) printf '%s' '{STAGES}' ;;
  report*) echo reported ;;
  *--name=c*) exit "$(answer codes)" ;;
esac
"""


@pytest.fixture
def fanout(tmp_path):
    fakes = Fakes(tmp_path / "fakes")
    study = [flag.replace("WORKDIR", str(tmp_path / "runs")) for flag in STUDY]

    def run(*options, codes=(0,)):
        fakes.add("mmr", FANOUT, codes=codes)
        code, out, err = fakes.run("fanout.py", *options, "--", *study)
        stages = [call[-1].removeprefix("--name=") for call in fakes.calls if call[1:2] == ["stage"]]
        return code, out, stages

    return fakes, study, run


def test_fanout_runs_each_stage_after_those_it_needs(fanout):
    fakes, study, run = fanout
    code, out, stages = run("--workers=2", codes=[75, 0])
    assert code == 0 and out.endswith("reported\n") and fakes.calls[-1] == ["mmr", "report", *study]
    assert sorted(stages) == ["b", "c", "c", "d", "e"] and stages[-1] == "e" and stages.index("b") < stages.index("c")
    assert ["mmr", "stage", *study, "--name=b"] in fakes.calls


def test_fanout_leaves_out_what_needs_a_stage_that_failed(fanout):
    _, _, run = fanout
    code, out, stages = run(codes=[2])
    assert code == 2 and sorted(stages) == ["b", "c", "d"]
    assert "c: exit code 2, see" in out and "e: not run" in out and "reported" not in out


def test_fanout_submits_jobs_that_wait_for_one_another(fanout):
    fakes, study, run = fanout
    fakes.add("sbatch", "answer jobs\n", jobs=["11", "12;cluster", "13", "14", "15"])
    code, out, stages = run("--slurm", "--time=1:00:00")
    assert code == 0 and stages == [] and out.splitlines() == ["11 b", "12 c", "13 d", "14 e", "15 report"]
    jobs = [call for call in fakes.calls if call[0] == "sbatch"]
    waits = [next((a for a in call if a.startswith("--dependency")), "") for call in jobs]
    after = "--dependency=afterok:"
    assert waits == ["", f"{after}11", "", f"{after}12:13", f"{after}11:12:13:14"]
    assert all("--time=1:00:00" in call and "--parsable" in call for call in jobs)
    assert jobs[1][-6:] == ["launch/slurm_job.sh", "stage", *study, "--name=c"]
    assert jobs[4][-5:] == ["launch/slurm_job.sh", "report", *study]


def test_fanout_prints_what_it_would_do(fanout):
    fakes, study, run = fanout
    code, out, _ = run("--dry_run")
    assert code == 0 and [call[1] for call in fakes.calls] == ["stages"]
    assert out.splitlines()[0] == f"launch/local.sh -- stage {study[0]} {study[1]} '--config.seeds=(0,1)' --name=b"
    code, out, _ = run("--dry_run", "--slurm")
    assert "--dependency=afterok:JOB2:JOB3 --kill-on-invalid-dep=yes -- stage" in out.splitlines()[3]


def test_fanout_passes_a_signal_on_once_and_starts_nothing_more(fanout, tmp_path):
    fakes, study, _ = fanout
    fakes.add("mmr", f"case $1 in stages) printf '%s' '{STAGES}'; exit ;; esac{SAVES.format(python=sys.executable)}")
    process = fakes.start("fanout.py", "--workers=2", "--", *study, start_new_session=True)
    logs = [tmp_path / "runs/logs" / f"{name}.log" for name in "bd"]
    while not all(log.exists() and "up" in log.read_text() for log in logs):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and len(fakes.calls) == 3
    assert "b: exit code 75" in out and "c: not run" in out and "e: not run" in out
    assert [log.read_text() for log in logs] == ["up\n15\n"] * 2
