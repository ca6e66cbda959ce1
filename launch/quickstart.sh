#!/usr/bin/env bash
# Set up on first use, then run the robustness study on the embedded default. Arguments go to `mmr run`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_env ""
exec .venv/bin/mmr run --config=configs/quickstart.py --workdir=runs/quickstart "$@"
