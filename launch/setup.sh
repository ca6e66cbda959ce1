# shellcheck shell=bash
# Sourced by the other scripts: `setup_env [extras]` makes .venv with the tested versions, once per set of extras.

setup_env() {
  local extras="$1" root stamp digest
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  cd "$root" || return 1
  if [ ! -x .venv/bin/python ]; then
    local python="${PYTHON:-python3}"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      echo "mmr_jax needs Python 3.11 or newer; $python is $("$python" --version). Set PYTHON=/path/to/python3.11" >&2
      return 2
    }
    "$python" -m venv .venv || {
      rm -rf .venv  # what is half made would be taken for whole next time
      echo "could not make .venv; on Debian or Ubuntu: apt install python3-venv" >&2
      return 1
    }
  fi
  digest="$(cat setup.py constraints.txt | cksum | tr -d ' ')"
  stamp=".venv/stamp-${extras:-core}-$digest"
  if [ ! -e "$stamp" ]; then
    echo "installing mmr_jax${extras:+[$extras]} with the versions of constraints.txt ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extras:+[$extras]}" || return 1
    touch "$stamp"
  fi
}
