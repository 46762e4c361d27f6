#!/usr/bin/env bash
# usage: audit.sh   Ask advisory databases for known vulnerabilities of what verifier and agent carry. 0: none known. 1: some.
# 2: no database could be asked, which says nothing about the packages.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=build/audit-tools
pinned=$(sha256sum <requirements-audit.txt)
if [ "$(cat "$tools/.installed" 2>/dev/null)" != "$pinned" ]; then
    "${PYTHON:-python3.11}" -m venv --clear "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.txt
    echo "$pinned" >"$tools/.installed"
fi
report=$(mktemp)
trap 'rm -f "$report"' EXIT
asked=no
for service in osv pypi; do
    for pinned in docker/verifier/requirements.txt docker/agent/requirements.txt; do
        status=0
        "$tools/bin/pip-audit" --disable-pip --require-hashes -r "$pinned" --vulnerability-service "$service" --timeout 15 \
            --progress-spinner off --format json >"$report" 2>"$report.err" || status=$?
        # An answer has dependencies that were looked up; what is skipped was not.
        looked=$(python3 -c 'import json, sys; print(sum("skip_reason" not in one for one in json.load(open(sys.argv[1]))["dependencies"]))' "$report" 2>/dev/null || echo 0)
        if [ "$looked" -gt 0 ]; then
            asked=yes
            echo "$service: $looked packages of $pinned"
            [ "$status" -eq 0 ] || { "$tools/bin/pip-audit" --disable-pip --require-hashes -r "$pinned" --vulnerability-service "$service" || true; exit 1; }
        fi
    done
    [ "$asked" = no ] || break
done
if [ "$asked" = no ]; then
    echo "NOT AUDITED: neither osv nor pypi could be asked from this machine; nothing is known about the packages" >&2
    exit 2
fi
echo "no known vulnerability"
