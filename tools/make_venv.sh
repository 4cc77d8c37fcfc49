#!/usr/bin/env bash
# make_venv.sh VERSION FOLDER: makes a virtual environment on Python VERSION (as 3.10), unless the folder already is one.
# Tries, in this order: $PYTHON, pythonVERSION, python3 and python on the PATH (through pyenv too), uv (which fetches one).
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 venv=$2

fits() { "$@" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" >/dev/null 2>&1; }

if [ -x "$venv/bin/python" ] && fits "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi
rm -rf "$venv"
export PYENV_VERSION="$version"  # pyenv's shims answer by it
# A python on the PATH may be a shim that does not run: each candidate is tried, not trusted.
for candidate in ${PYTHON:+"$PYTHON"} "python$version" python3 python; do
    if fits "$candidate" && "$candidate" -m venv "$venv" >/dev/null 2>&1; then
        echo "made $venv with $("$candidate" -c 'import sys; print(sys.executable)')"
        exit 0
    fi
done
if command -v uv >/dev/null 2>&1 && uv venv --python "$version" --seed "$venv"; then
    exit 0
fi
rm -rf "$venv"
cat >&2 <<MESSAGE
sparsespike needs Python $version here, and none was found that runs. Any one of these three ways is enough:
  1. pyenv:   pyenv install $version        (pyenv then finds it by itself)
  2. system:  install python$version with its venv module (Debian, Ubuntu: apt install python$version-venv), or name one: PYTHON=/path/to/python$version make ...
  3. uv:      pip install uv            (uv fetches Python $version by itself)
MESSAGE
exit 1
