"""Stand-ins for mmr, gcloud, sbatch and the like: they write down how they were called and answer from files."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = ["run", "--config=configs/x.py", "--workdir=/shared/a b", "--config.seeds=(0,1)"]
RECORD = """#!/usr/bin/env bash
here="$(dirname "$0")"
echo "$(printf '%q ' "$(basename "$0")" "$@")" >>"$here/calls"
answer() { local line; line="$(head -n 1 "$here/$1")"; sed -i 1d "$here/$1"; echo "$line"; }
"""
MMR = 'exit "$(answer codes)"\n'


class Fakes:
    """Programs in a folder that comes first on the PATH. `calls` are their command lines in order."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, body: str = "", **answers: list) -> None:
        """A program `name`. Each of `answers` is a file; `answer FILE` in `body` prints its lines one after another."""
        path = self.folder / name
        path.write_text(RECORD + body)
        path.chmod(0o755)
        for file, lines in answers.items():
            (self.folder / file).write_text("".join(f"{line}\n" for line in lines))

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [shlex.split(line) for line in path.read_text().splitlines()] if path.exists() else []

    def start(self, script: str, *arguments: str, cwd=ROOT, start_new_session=False, **environment: str):
        """Popen of `launch/<script>` with these programs; mmr is the one among them, if there is one."""
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        mmr = {"MMR": str(self.folder / "mmr")} if (self.folder / "mmr").exists() else {}
        return subprocess.Popen(
            [ROOT / "launch" / script, *arguments],
            env={**os.environ, "PATH": path, "TMPDIR": str(self.folder), **mmr, **environment},
            cwd=cwd,
            start_new_session=start_new_session,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in a background job
        )

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        process = self.start(script, *arguments, **environment)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err
