#!/usr/bin/env bash
# Submits a command of mmr to SLURM, for GPUs. Options of sbatch come first.
#
#   launch/slurm.sh [--dry_run] --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 --time=24:00:00 -- \
#     run --config=configs/x.py --workdir=/shared/runs/x
#
# One process per GPU (--ntasks-per-node as many as --gpus-per-node; not --gpus-per-task, as each process must see all
# GPUs of its node); they find each other by themselves.
# Needs: this checkout and the workdir on a file system that all nodes share; makes .venv with the extra [cuda] on first
# use.
# Preemption: SLURM sends SIGTERM to the processes 120 s before the time limit (another: --signal=TERM@600), or when it
# preempts; they save and end with 75, and slurm_job.sh requeues the job under the same number.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
sbatch=(sbatch --requeue --open-mode=append --output=slurm-%j.log --signal=TERM@120)
for argument in "$@"; do
  case "$argument" in
    --) break ;;
    --help) usage; exit 0 ;;
    --dry_run) dry_run=1 ;;
    --*) sbatch+=("$argument") ;;
    *) bad "options of sbatch are written --name=value, not $argument" ;;
  esac
  shift
done
options "" "" "$@"
ready cuda
run "${sbatch[@]}" --chdir="$ROOT" launch/slurm_job.sh "${arguments[@]}"
