#!/usr/bin/env python3
"""Runs a study stage by stage, stages that do not need each other at the same time; what is finished is left alone.

    launch/fanout.py --workers=4 -- --config=configs/x.py --workdir=runs/x
    launch/fanout.py --slurm --gpus-per-node=1 --time=4:00:00 -- --config=configs/x.py --workdir=/shared/runs/x

After the -- come the flags of mmr run. --workers: processes on this machine, each with all its devices, so more than
one is for CPUs; their output goes to WORKDIR/logs. --slurm: a job per stage that waits for those it needs, with the
other options given to sbatch. At the end the report is written. --dry_run prints what would be executed; to know the
stages it runs `mmr stages`, which writes nothing.

Needs: what local.sh or slurm.sh needs. Preemption: as in local.sh and slurm.sh; the same line again runs or submits
what is not finished.
"""

import argparse
import csv
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MMR = os.environ.get("MMR", ".venv/bin/mmr")


def main() -> int:
    """Exit code 0 when all is finished or submitted, else that of the first stage that failed."""
    os.chdir(ROOT)
    options, study, rest = _arguments()
    needs = _unfinished(study)
    if options.slurm:
        return _slurm(needs, study, rest, options.dry_run)
    return Local(study, options.workers).run(needs, options.dry_run)


def _arguments() -> tuple[argparse.Namespace, list[str], list[str]]:
    """The options, the study's flags after the --, and the options of sbatch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--slurm", action="store_true")
    parser.add_argument("--dry_run", action="store_true")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, rest = parser.parse_known_args(sys.argv[1:cut])
    study = sys.argv[cut + 1 :]
    if not any(flag.startswith("--workdir=") for flag in study):
        parser.error("after -- the flags of the study are missing: -- --config=configs/x.py --workdir=runs/x")
    if rest and not options.slurm:
        parser.error(f"unknown option {rest[0]}")
    if not shutil.which(MMR):
        parser.error(f"there is no {MMR}: launch/quickstart.sh makes it, or set MMR=/path/to/mmr")
    return options, study, rest


def _unfinished(study: list[str]) -> dict[str, list[str]]:
    """{stage: those of its needs that are not finished either}, each after its needs."""
    found = subprocess.run([MMR, "stages", *study, "--format=tsv"], stdout=subprocess.PIPE, text=True)
    if found.returncode:
        sys.exit(found.returncode)
    rows = list(csv.DictReader(found.stdout.splitlines(), delimiter="\t"))
    todo = {row["name"]: row["needs"].split(",") for row in rows if row["finished"] == "no"}
    print(f"{len(rows) - len(todo)} of {len(rows)} stages are finished", file=sys.stderr)
    return {name: [need for need in wanted if need in todo] for name, wanted in todo.items()}


def _slurm(needs: dict[str, list[str]], study: list[str], options: list[str], dry_run: bool) -> int:
    """Submits every stage, then the report, and prints `job stage`."""
    jobs: dict[str, str] = {}

    def submit(name: str, after: list[str], *command: str) -> None:
        waits = [f"--dependency=afterok:{':'.join(jobs[n] for n in after)}", "--kill-on-invalid-dep=yes"]
        line = ["launch/slurm.sh", *options, "--parsable", f"--job-name={name}", *(waits if after else []), *command]
        if dry_run:
            jobs[name] = f"JOB{len(jobs) + 1}"
            print(shlex.join(line))
            return
        printed = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout
        jobs[name] = printed.strip().split(";")[0]  # the cluster may follow
        print(jobs[name], name, flush=True)

    for name, after in needs.items():
        submit(name, after, "--", "stage", *study, f"--name={name}")
    submit("report", list(needs), "--nodes=1", "--ntasks=1", "--", "report", *study)
    return 0


class Local:
    """Stages as processes of this machine, each of them a local.sh."""

    def __init__(self, study: list[str], workers: int):
        self.study, self.workers = study, workers
        workdir = next(flag.partition("=")[2] for flag in study if flag.startswith("--workdir="))
        self.logs = Path(workdir) / "logs"
        self.lock = threading.Lock()
        self.stopped = False
        self.processes: list[subprocess.Popen] = []

    def run(self, needs: dict[str, list[str]], dry_run: bool) -> int:
        """All stages and the report."""
        report = [MMR, "report", *self.study]
        if dry_run:
            print(*map(shlex.join, [*map(self._line, needs), report]), sep="\n")
            return 0
        self.logs.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        codes = self._stages(needs)
        for name in needs:
            if codes.get(name) != 0:
                print(f"{name}: {f'exit code {codes[name]}, see {self._log(name)}' if name in codes else 'not run'}")
        failed = [code for code in codes.values() if code]
        return failed[0] if failed else subprocess.run(report).returncode

    def _stages(self, needs: dict[str, list[str]]) -> dict[str, int]:
        """{stage: exit code} of those that could run: after a failure whatever does not need the stage goes on."""
        order, codes, running = TopologicalSorter(needs), {}, {}
        order.prepare()
        with ThreadPoolExecutor(self.workers) as pool:
            while order.is_active():
                running |= {pool.submit(self._stage, name): name for name in order.get_ready()}
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    codes[name] = future.result()
                    if codes[name] == 0:
                        order.done(name)
        return codes

    def _stage(self, name: str) -> int:
        with self.lock:
            if self.stopped:
                return 75
            print(f"{name}: begun", flush=True)
            with open(self._log(name), "a") as log:  # a session of its own: a Ctrl-C is passed on once, by _stop
                process = subprocess.Popen(self._line(name), stdout=log, stderr=log, start_new_session=True)
            self.processes.append(process)
        code = process.wait()
        print(f"{name}: exit code {code}", flush=True)
        return code

    def _stop(self, number: int, frame) -> None:
        with self.lock:
            self.stopped = True
            for process in self.processes:
                process.terminate()

    def _line(self, name: str) -> list[str]:
        return ["launch/local.sh", "--", "stage", *self.study, f"--name={name}"]

    def _log(self, name: str) -> Path:
        return self.logs / f"{name.replace('/', '.')}.log"


if __name__ == "__main__":
    sys.exit(main())
