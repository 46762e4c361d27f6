#!/usr/bin/env bash
# usage: make-venv.sh PYTHON VENV   A virtual environment with pinned, hash-checked dependencies and both
# distributions of this repository in editable form.
set -euo pipefail
python=$1 venv=$2

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
echo "installing Python dependencies (pinned, hash-checked)" >&2
"${pip[@]}" install --require-hashes -r requirements-build.txt
"${pip[@]}" install --require-hashes --no-build-isolation -r requirements.txt
"${pip[@]}" install --no-deps --no-build-isolation -e ./agent -e .
