#!/usr/bin/env bash
# Submits a command of mmr to a GKE cluster that xpk made.
#
#   launch/xpk.sh --name=study --cluster=CLUSTER --type=v5litepod-256 --image=IMAGE -- \
#     run --config=configs/x.py --workdir=/shared/runs/x
#
# Options: --project=P, --zone=Z, --slices=1, --dry_run.
# Needs: xpk; an image (Dockerfile); a file system that xpk storage attaches to the cluster with --auto-mount=true.
# Preemption: xpk restarts all hosts, at most 100 times, after exit codes 1, 42, 75 and 127 to 255.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
name="" cluster="" type="" image="" project="" zone="" slices=1
options "name cluster type image project zone slices" "" "$@"
need name cluster type image
run xpk workload create --workload="$name" --cluster="$cluster" ${project:+"--project=$project"} ${zone:+"--zone=$zone"} \
  --tpu-type="$type" --num-slices="$slices" --docker-image="$image" --max-restarts=100 --restart-on-exit-codes=1,75 \
  --termination-grace-period-seconds=120 --command="exec mmr $(show "${arguments[@]}")"
