#!/usr/bin/env bash
# usage: fuzz.sh VENV [ARGUMENT...]   Install the fuzzer beside the environment, not into it, and run `python -m tests.fuzz`.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
shift
tools=build/fuzz-tools
pinned=$(sha256sum <requirements-fuzz.txt)
if [ "$(cat "$tools/.installed" 2>/dev/null)" != "$pinned" ]; then
    rm -rf "$tools"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --target "$tools" -r requirements-fuzz.txt
    echo "$pinned" >"$tools/.installed"
fi
PYTHONPATH="$tools" exec "$venv/bin/python" -m tests.fuzz "$@"
