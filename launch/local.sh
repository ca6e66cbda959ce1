#!/usr/bin/env bash
# Runs a command of mmr on this machine, and again while it ends with 75 (interrupted and saved) or crashes.
#
#   launch/local.sh [--crashes=3] [--dry_run] -- run --config=configs/x.py --workdir=runs/x
#
# Needs: nothing; makes .venv on first use. --crashes: so many are repeated.
# Preemption: a process that is told to stop saves, ends with 75 and is started again. When the machine itself goes,
# give the same line on the next one. SIGTERM or Ctrl-C to this script is passed on and ends both.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
crashes=3
options "crashes" "" "$@"
ready ""
if [ -n "$dry_run" ]; then
  show "$MMR" "${arguments[@]}"
  exit
fi
listen
crashed=0
while :; do
  attempt "$MMR" "${arguments[@]}"
  if over || [ "$asked" -gt 0 ]; then break; fi
  [ "$code" = 75 ] || crashed=$((crashed + 1))
  [ "$crashed" -le "$crashes" ] || break
  echo "local.sh: exit code $code, again" >&2
done
exit "$code"
