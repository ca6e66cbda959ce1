"""The launch scripts, as far as they go without a network."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Debian's python without python3-venv: it leaves a .venv that has a python and no pip, and fails.
HALF = """#!/usr/bin/env bash
[ "$1" = -c ] && exit 0
mkdir -p .venv/bin && printf '#!/bin/sh\nexit 1\n' > .venv/bin/python && chmod +x .venv/bin/python
exit 1
"""


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
