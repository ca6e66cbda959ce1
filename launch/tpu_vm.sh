#!/usr/bin/env bash
# Runs a command of mmr on all hosts of a TPU slice, with gcloud.
#
#   launch/tpu_vm.sh --name=v5e --zone=us-west4-a -- run --config=configs/x.py --workdir=/shared/runs/x
#   launch/tpu_vm.sh --name=v5e --zone=us-west4-a --queued --type=v5litepod-256 --version=v2-alpha-tpuv5-lite --spot \
#     --setup='sudo mount 10.0.0.2:/runs /shared' -- run --config=configs/x.py --workdir=/shared/runs/x
#
# Options: --project=P, --setup=COMMANDS (on every host before installing, for example apt-get, mount,
# export PYTHON=python3.11), --crashes=3 (so many are repeated), --keep (the queued slice, also when all is over),
# --dry_run. Without --queued the slice must be there.
# Needs: gcloud, logged in; a workdir on a file system that all hosts mount; a slice for this run alone: an mmr that is
# at work on it is asked to save and waited for. The files of this checkout that git tracks (git add what is new) are
# copied to ~/mmr_jax of each host.
# Preemption: a queued slice that is SUSPENDED or FAILED is deleted, queued again, set up and the command repeated; a
# command that ends with 75 or crashes on a slice that is there is repeated. On SIGTERM or Ctrl-C the run is asked to
# save, and the slice stays; after 0, 2 and 3 a queued slice is deleted.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
name="" zone="" project="" type="" version="" setup="true" queued="" spot="" keep="" crashes=3
options "name zone project type version setup crashes" "queued spot keep" "$@"
need name zone
if [ -n "$queued" ]; then need type version; elif [ -n "$spot$type$version" ]; then bad "--type goes with --queued"; fi
cd "$ROOT"
where=(--zone="$zone" --quiet)
[ -z "$project" ] || where+=(--project="$project")
package="${TMPDIR:-/tmp}/mmr_jax-$name.tgz"
wait_s="${TPU_WAIT_S:-30}"

tpu() {
  local line=(gcloud compute tpus "$@" "${where[@]}")
  if [ -n "$dry_run" ]; then show "${line[@]}"; else attempt "${line[@]}"; fi
  return "$code"
}
create() {
  tpu queued-resources create "$name" --node-id="$name" --accelerator-type="$type" --runtime-version="$version" \
    ${spot:+--spot}
}
delete() { tpu queued-resources delete "$name" --force; }
state() {
  if [ -n "$queued" ]; then
    tpu queued-resources describe "$name" --format='value(state.state)'
  else
    tpu tpu-vm describe "$name" --format='value(state)'
  fi
}
on_hosts() { tpu tpu-vm ssh "$name" --worker=all --command="$1"; }
# gcloud itself repeats a command when a connection breaks, so the one before may still be at work
stop="pkill -TERM -x mmr; while pgrep -x mmr >/dev/null; do sleep 1; done"
install() {
  run bash -c 'git ls-files -z | tar --null --ignore-failed-read --files-from=- -czf "$0"' "$package" &&
    tpu tpu-vm scp "$package" "$name:mmr_jax.tgz" --worker=all &&
    on_hosts "mkdir -p mmr_jax && tar -xzf mmr_jax.tgz -C mmr_jax && cd mmr_jax && { $setup; } && source launch/setup.sh \
&& setup_env tpu"
}
launch() { on_hosts "cd mmr_jax && { $stop; exec .venv/bin/mmr $(show "${arguments[@]}"); }"; }

if [ -n "$dry_run" ]; then
  [ -z "$queued" ] || create
  state
  install
  launch
  [ -z "$queued" ] || [ -n "$keep" ] || delete
  exit
fi

listen
crashed=0 installed=""
crash() {  # counts one and says whether it was one too many
  crashed=$((crashed + 1))
  [ "$crashed" -gt "$crashes" ]
}
acquire() {  # waits until the slice is there; `code` is 75 if this run can go on when it is
  local found
  while [ "$asked" = 0 ]; do
    found="$(state 2>/dev/null || true)"
    case "$queued:$found" in
      1:ACTIVE | :READY) return ;;
      1:) installed=""; create || ! crash || return 1 ;;
      1:SUSPENDED) crashed=0; delete || ! crash || return 1 ;;
      1:FAILED) delete || true; ! crash || return 1 ;;
      :) ! crash || return 1 ;;
      :PREEMPTED | :TERMINATED | :STOPPED) code=75; return 1 ;;
    esac
    echo "tpu_vm.sh: $name is ${found:-not there yet}" >&2
    attempt sleep "$wait_s"
  done
  code=75
  return 1
}

while :; do
  if ! acquire; then
    echo "tpu_vm.sh: there is no $name to run on" >&2
    [ "$code" = 75 ] || code=1
    break
  fi
  if [ -n "$installed" ] || install; then
    installed=1
    launch || true
  fi
  if [ "$asked" -gt 0 ]; then
    asked=0
    on_hosts "$stop" || true
    code=75
    break
  fi
  if over; then break; fi
  if [ "$code" != 75 ] && crash; then break; fi
  echo "tpu_vm.sh: exit code $code, again" >&2
  attempt sleep "$wait_s"
done
rm -f "$package"
ended=$code
if [ -n "$queued" ] && [ -z "$keep" ] && over; then delete || true; fi
exit "$ended"
