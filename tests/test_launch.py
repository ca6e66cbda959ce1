"""The launch scripts, as far as they go without a network: linted, and what --dry_run prints."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launching import COMMAND, ROOT, Fakes

SCRIPTS = sorted(path.name for path in (ROOT / "launch").glob("*.sh"))
TOOLS = Path(sys.executable).parent
# Debian's python without python3-venv: it leaves a .venv that has a python and no pip, and fails.
HALF = """#!/usr/bin/env bash
[ "$1" = -c ] && exit 0
mkdir -p .venv/bin && printf '#!/bin/sh\nexit 1\n' > .venv/bin/python && chmod +x .venv/bin/python
exit 1
"""


@pytest.fixture
def fakes(tmp_path):
    made = Fakes(tmp_path / "fakes")
    for name in ("mmr", "gcloud", "kubectl", "xpk", "sbatch"):
        made.add(name, "exit 9\n")
    return made


def printed(fakes, script, *arguments):
    """The command lines that --dry_run prints; nothing has been executed."""
    code, out, err = fakes.run(script, "--dry_run", *arguments)
    assert code == 0 and not fakes.calls, err
    return [shlex.split(line) for line in out.splitlines()]


def test_an_environment_that_is_half_made_is_removed(tmp_path):
    (tmp_path / "launch").mkdir()
    shutil.copy(ROOT / "launch/setup.sh", tmp_path / "launch")
    python = tmp_path / "python"
    python.write_text(HALF)
    python.chmod(0o755)
    command = ["bash", "-c", "source launch/setup.sh; setup_env dev"]
    for _ in range(2):  # the second time must not take what the first one left
        done = subprocess.run(command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)},
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.returncode == 1 and "python3-venv" in done.stderr
        assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_have_no_faults_that_linters_know(script):
    path = str(ROOT / "launch" / script)
    subprocess.run(["bash", "-n", path], check=True)
    shellcheck = TOOLS / "shellcheck"
    if not shellcheck.exists():
        pytest.skip("shellcheck is not installed (extra [dev])")
    found = subprocess.run([shellcheck, "-x", "-P", "SCRIPTDIR", path], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_yaml_has_no_faults_that_a_linter_knows():
    config = pytest.importorskip("yamllint.config", reason="yamllint is not installed (extra [dev])")
    from yamllint import linter

    rules = config.YamlLintConfig("{extends: default, rules: {line-length: {max: 120}, document-start: disable}}")
    for path in (ROOT / "launch").glob("*.yaml"):
        assert not list(linter.run(path.read_text(), rules))


def test_local_prints_the_command(fakes):
    assert printed(fakes, "local.sh", "--", *COMMAND) == [[str(fakes.folder / "mmr"), *COMMAND]]


def test_tpu_vm_prints_every_step(fakes):
    options = ["--name=v5e", "--zone=us-west4-a", "--project=p"]
    tpu, where = ["gcloud", "compute", "tpus"], ["--zone=us-west4-a", "--quiet", "--project=p"]
    kind = ["--type=v5litepod-256", "--version=v2-alpha-tpuv5-lite"]
    lines = printed(fakes, "tpu_vm.sh", *options, "--queued", *kind, "--spot", "--setup=mount 'a b'", "--", *COMMAND)
    package, ssh = str(fakes.folder / "mmr_jax-v5e.tgz"), [*tpu, "tpu-vm", "ssh", "v5e", "--worker=all"]
    create, describe, pack, copy, setup, launch, delete = lines
    slice_ = ["--node-id=v5e", "--accelerator-type=v5litepod-256", "--runtime-version=v2-alpha-tpuv5-lite"]
    assert create == [*tpu, "queued-resources", "create", "v5e", *slice_, "--spot", *where]
    assert describe == [*tpu, "queued-resources", "describe", "v5e", "--format=value(state.state)", *where]
    assert pack[:2] == ["bash", "-c"] and pack[-1] == package
    assert copy == [*tpu, "tpu-vm", "scp", package, "v5e:mmr_jax.tgz", "--worker=all", *where]
    assert [line[:7] + line[8:] for line in (setup, launch)] == [[*ssh, *where]] * 2
    assert "&& { mount 'a b'; } && source launch/setup.sh && setup_env tpu" in setup[7]
    for line in (setup, launch):
        subprocess.run(["bash", "-n", "-c", line[7].removeprefix("--command=")], check=True)
    there = launch[7].partition("exec ")[2].removesuffix("; }")
    assert shlex.split(there) == [".venv/bin/mmr", *COMMAND]  # as the host's shell reads it
    assert delete == [*tpu, "queued-resources", "delete", "v5e", "--force", *where]
    first, *rest = printed(fakes, "tpu_vm.sh", *options, "--setup=mount 'a b'", "--", *COMMAND)
    assert first == [*tpu, "tpu-vm", "describe", "v5e", "--format=value(state)", *where]
    assert rest == [pack, copy, setup, launch]


def test_slurm_prints_sbatch(fakes):
    (line,) = printed(fakes, "slurm.sh", "--nodes=4", "--gpus-per-node=8", "--ntasks-per-node=8", "--", *COMMAND)
    kept = ["--requeue", "--open-mode=append", "--output=slurm-%j.log", "--signal=TERM@120"]
    asked = ["--nodes=4", "--gpus-per-node=8", "--ntasks-per-node=8"]
    assert line == ["sbatch", *kept, *asked, f"--chdir={ROOT}", "launch/slurm_job.sh", *COMMAND]


def test_gke_prints_a_jobset(fakes):
    options = ["--name=study", "--image=i/mmr:1", "--claim=runs", "--accelerator=tpu-v5-lite-podslice"]
    code, out, err = fakes.run("gke.sh", "--dry_run", *options, "--topology=8x16", "--slices=2", "--", *COMMAND)
    line, _, text = out.partition("\n")
    assert code == 0 and line == "kubectl create -f -" and not fakes.calls, err
    jobset = yaml.safe_load(text)
    (slices,) = jobset["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert jobset["metadata"]["name"] == "study" and slices["replicas"] == 2
    assert job["parallelism"] == job["completions"] == 8 * 16 // 4 and job["backoffLimit"] == 0
    assert container["image"] == "i/mmr:1" and container["command"] + container["args"] == ["mmr", *COMMAND]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "8x16"
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "runs"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2, 3]
    assert rule["onExitCodes"]["containerName"] == container["name"] and pod["restartPolicy"] == "Never"
    (policy,) = jobset["spec"]["failurePolicy"]["rules"]
    assert policy == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}


def test_xpk_prints_the_workload(fakes):
    options = ["--name=study", "--cluster=c", "--type=v5litepod-256", "--image=i", "--project=p"]
    (line,) = printed(fakes, "xpk.sh", *options, "--", *COMMAND)
    assert line[:4] == ["xpk", "workload", "create", "--workload=study"]
    assert {"--cluster=c", "--project=p", "--tpu-type=v5litepod-256", "--docker-image=i"} < set(line)
    assert "--restart-on-exit-codes=1,75" in line
    command = line[-1].removeprefix("--command=")
    assert shlex.split(command) == ["exec", "mmr", *COMMAND]


@pytest.mark.parametrize("script", ["local.sh", "tpu_vm.sh", "gke.sh", "xpk.sh", "slurm.sh", "fanout.py"])
def test_help_says_usage_needs_and_preemption(script, fakes):
    code, out, _ = fakes.run(script, "--help")
    assert code == 0 and all(part in out for part in (f"launch/{script} ", "Preemption: ", "Needs: "))
    assert "set -euo" not in out and "import" not in out


@pytest.mark.parametrize("script, arguments, message", [
    ("local.sh", ["run"], "unexpected run"),
    ("local.sh", ["--crash=3", "--", "run"], "unknown option --crash=3"),
    ("local.sh", ["--dry_run"], "there is no command of mmr"),
    ("tpu_vm.sh", ["--name=a", "--", "run"], "--zone=... is missing"),
    ("tpu_vm.sh", ["--name=a", "--zone=b", "--spot", "--", "run"], "--type goes with --queued"),
    ("slurm.sh", ["-N", "4", "--", "run"], "options of sbatch are written --name=value, not -N"),
    ("gke.sh", ["--name=a", "--image=i", "--claim=c", "--accelerator=t", "--topology=16", "--", "run"],
     "--topology=16 is not written like"),
    ("fanout.py", ["--time=1", "--", "--workdir=x"], "unknown option --time=1"),
    ("fanout.py", ["--", "--config=x"], "after -- the flags of the study are missing"),
], ids=str)  # fmt: skip
def test_what_is_wrong_is_refused_with_exit_code_2(script, arguments, message, fakes):
    code, _, err = fakes.run(script, *arguments)
    assert code == 2 and message in err.splitlines()[-1] and not fakes.calls


def test_every_launcher_is_in_the_guide():
    guide = (ROOT / "docs/launch.md").read_text()
    assert [path.name for path in (ROOT / "launch").iterdir() if path.is_file() and path.name not in guide] == []
