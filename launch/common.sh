# shellcheck shell=bash
# Sourced by the launchers. Each takes --name=value options of its own, then --, then a command of mmr.
#
# Exit codes of mmr: 0 done; 2 (bad input) and 3 (diverged): again would be the same; 75 interrupted and saved: again;
# any other is a crash (134: another host has died): again, but not for ever.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
MMR="${MMR:-.venv/bin/mmr}"  # of another environment: MMR=/path/to/mmr
arguments=() dry_run="" code=0 asked=0 told=0 child=""

usage() {  # the header of the script
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

bad() {
  echo "$(basename "$0"): error: $1; --help says more" >&2
  exit 2
}

# options "name zone" "spot" "$@": --name=value sets the variable `name`, --spot sets `spot` to 1, and what comes after
# -- are the `arguments` of mmr.
options() {
  local values=" $1 " flags=" dry_run $2 " option
  shift 2
  while [ $# -gt 0 ]; do
    option="${1#--}" option="${option%%=*}"
    case "$1" in
      --) shift; break ;;
      --help) usage; exit 0 ;;
      --*=*) [[ "$values" == *" $option "* ]] || bad "unknown option $1"; printf -v "$option" %s "${1#*=}" ;;
      --*) [[ "$flags" == *" $option "* ]] || bad "unknown option $1"; printf -v "$option" 1 ;;
      *) bad "unexpected $1" ;;
    esac
    shift
  done
  [ $# -gt 0 ] || bad "there is no command of mmr after --, such as run --config=configs/x.py --workdir=runs/x"
  # shellcheck disable=SC2034  # the launchers read it
  arguments=("$@")
}

need() {  # refuses options that are not given
  local option
  for option in "$@"; do [ -n "${!option}" ] || bad "--$option=... is missing"; done
}

ready() {  # in the repository's root, with an environment that has the extra $1
  cd "$ROOT" || exit 1
  # shellcheck source=launch/setup.sh
  source launch/setup.sh
  [ -n "$dry_run" ] || command -v "$MMR" >/dev/null || setup_env "$1"
}

show() {  # a command line as the shell reads it
  local word line=""
  for word in "$@"; do
    [[ "$word" =~ ^[[:alnum:]_@%+=:,./-]+$ ]] || word="${word@Q}"
    line+=" $word"
  done
  echo "${line# }"
}

run() {
  if [ -n "$dry_run" ]; then show "$@"; else "$@"; fi
}

listen() {  # from now on signals to this script are counted in `asked`, and passed on as SIGTERM to what it attempts
  trap 'asked=$((asked + 1)); pass_on' INT TERM
}

pass_on() {  # each signal once
  if [ -n "$child" ] && [ "$told" -lt "$asked" ]; then
    told=$asked
    kill -TERM "$child" 2>/dev/null || true
  fi
}

# Runs a program in a process group of its own, which a Ctrl-C does not reach, so that it hears of it once. `code` is its
# exit code. After a signal nothing is begun any more.
attempt() {
  local before
  code=75 told=0
  [ "$asked" = 0 ] || return 0
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  pass_on  # of what came just now
  while :; do
    before=$asked code=0
    wait "$child" || code=$?
    [ "$asked" != "$before" ] || break  # else a signal ended `wait`, not the program
  done
  child=""
}

over() {  # whether the exit code says that there is nothing to repeat
  case "$code" in 0 | 2 | 3) return 0 ;; esac
  return 1
}
