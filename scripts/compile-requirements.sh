#!/usr/bin/env bash
# Recompile requirements*.txt. The outputs carry versions and hashes, never an address.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
python3.11 -m venv "$tool"
"$tool/bin/pip" install --quiet pip-tools
for name in requirements-build requirements-sbom requirements-audit requirements-fuzz requirements docker/verifier/requirements docker/agent/requirements tests/bench/peer/requirements; do
    CUSTOM_COMPILE_COMMAND="make requirements" "$tool/bin/pip-compile" --quiet --generate-hashes --allow-unsafe \
        --no-strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --resolver=backtracking \
        --output-file "$name.txt" "$name.in"
done
