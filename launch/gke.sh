#!/usr/bin/env bash
# Submits a command of mmr to GKE as a JobSet (jobset.yaml) on TPU slices.
#
#   launch/gke.sh --name=study --image=IMAGE --claim=runs --accelerator=tpu-v5-lite-podslice --topology=16x16 -- \
#     run --config=configs/x.py --workdir=/shared/runs/x
#
# Options: --chips_per_host=4, --slices=1, --dry_run.
# Needs: kubectl for a cluster with JobSet 0.6 or newer and such a node pool; an image (Dockerfile); a ReadWriteMany
# volume claim (Filestore), mounted at /shared.
# Preemption: pods get SIGTERM and 120 s; the JobSet is restarted as a whole, at most 100 times, unless a process ends
# with 2 or 3. When it is over: kubectl delete jobset NAME, before the same name is used again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
name="" image="" claim="" accelerator="" topology="" chips_per_host=4 slices=1
options "name image claim accelerator topology chips_per_host slices" "" "$@"
need name image claim accelerator topology
[[ "$topology" =~ ^[0-9]+(x[0-9]+)+$ ]] || bad "--topology=$topology is not written like 4x4 or 4x4x4"
chips=$((${topology//x/ * }))
[ $((chips % chips_per_host)) = 0 ] || bad "--topology=$topology are $chips chips, not a multiple of --chips_per_host"
export name image claim accelerator topology chips_per_host slices hosts=$((chips / chips_per_host))
cd "$ROOT"
jobset="$(${PYTHON:-python3} -c 'import json, os, string, sys
template = string.Template(open("launch/jobset.yaml").read())
print(template.substitute(os.environ, arguments=json.dumps(sys.argv[1:])))' "${arguments[@]}")"
run kubectl create -f - <<<"$jobset"
[ -z "$dry_run" ] || echo "$jobset"
