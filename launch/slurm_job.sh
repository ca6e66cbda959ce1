#!/usr/bin/env bash
# What slurm.sh submits: a command of mmr as one process per task, and the job again if its exit code asks for that.
set -euo pipefail
MMR="${MMR:-.venv/bin/mmr}"
crashes="slurm-$SLURM_JOB_ID.crashes"  # a line each, as a requeued job begins anew
cancelled=""
trap 'cancelled=1' TERM  # scancel tells this script too; the signal before the time limit goes to the processes alone

code=0
# whoever ends first has not failed: the others may still be saving
srun --kill-on-bad-exit=0 --wait=300 "$MMR" "$@" || code=$?
case "$code" in
  0 | 2 | 3) again="" ;;
  75) again=1 ;;
  *)
    echo "$code" >>"$crashes"
    again="$([ "$(wc -l <"$crashes")" -gt 3 ] || echo 1)"
    ;;
esac
if [ -n "$again" ] && [ -z "$cancelled" ]; then
  echo "slurm_job.sh: exit code $code, again" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
