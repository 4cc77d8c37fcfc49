#!/usr/bin/env bash
# Makes the virtual environment .venv on Python 3.10, the one version that holds Lava, Brian2 and torch together.
# Tries, in this order: $PYTHON, python3.10 on the PATH (also through pyenv and .python-version), uv (which fetches one).
set -euo pipefail
cd "$(dirname "$0")/.."

is_310() { "$@" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1; }

if [ -x .venv/bin/python ] && is_310 .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; then
    exit 0
fi
rm -rf .venv
# A python3.10 on the PATH may be a shim that does not run: each candidate is tried, not trusted.
for candidate in ${PYTHON:+"$PYTHON"} python3.10 python3 python; do
    if is_310 "$candidate" && "$candidate" -m venv .venv >/dev/null 2>&1; then
        echo "made .venv with $("$candidate" -c 'import sys; print(sys.executable)')"
        exit 0
    fi
done
if command -v uv >/dev/null 2>&1 && uv venv --python 3.10 --seed .venv; then
    exit 0
fi
rm -rf .venv
cat >&2 <<'MESSAGE'
sparsespike needs Python 3.10 here, and none was found that runs. Any one of these three ways is enough:
  1. pyenv:   pyenv install 3.10        (the file .python-version then selects it in this folder)
  2. system:  install python3.10 with its venv module (Debian, Ubuntu: apt install python3.10-venv), or name one: PYTHON=/path/to/python3.10 make demo
  3. uv:      pip install uv            (uv fetches Python 3.10 by itself)
MESSAGE
exit 1
