#!/usr/bin/env bash
# Set up on first use, then run the tests. Arguments go to pytest; `-m slow` runs what the default leaves out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_env "dev"
.venv/bin/ruff check .
exec .venv/bin/python -m pytest -m "not slow" -n 2 --dist loadfile "$@"
