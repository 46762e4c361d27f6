#!/usr/bin/env bash
# usage: build-wheels.sh [FOLDER]   Wheels of verifier and agent into FOLDER (dist), byte for byte the same wherever the same
# sources are built: with pinned tools, times of SOURCE_DATE_EPOCH (the last commit's), and a bill of materials inside
# (CycloneDX, in <name>.dist-info/sboms as PEP 770 has it) of the dependencies that were tested.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-dist}
python=${PYTHON:-python3.11}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y pyproject.toml)}
export SOURCE_DATE_EPOCH
umask 022

tools=build/wheel-tools
pinned=$(cat requirements-build.txt requirements-sbom.txt | sha256sum)
if [ "$(cat "$tools/.installed" 2>/dev/null)" != "$pinned" ]; then
    "$python" -m venv --clear "$tools"
    for file in requirements-build.txt requirements-sbom.txt; do
        "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$file"
    done
    echo "$pinned" >"$tools/.installed"
fi

# From a copy: what earlier builds left in the tree would get into the wheels.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/source" "$work/raw"
cp -r --preserve=timestamps agent verifier pyproject.toml README.md LICENSE "$work/source"
find "$work/source" \( -name __pycache__ -o -name '*.egg-info' -o -name build \) -prune -exec rm -rf {} +
chmod -R u=rwX,go=rX "$work/source"
(cd "$work/source" && "$OLDPWD/$tools/bin/pip" wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps \
    --wheel-dir "$work/raw" ./agent .)

mkdir -p "$out"
for wheel in "$work"/raw/*.whl; do
    name=verifier project=pyproject.toml
    case "$wheel" in */vtpm_attest_agent-*) name=agent project=agent/pyproject.toml ;; esac
    "$tools/bin/wheel" unpack --dest "$work/$name" "$wheel" >/dev/null
    unpacked=$(echo "$work/$name"/*)
    boms=$(echo "$unpacked"/*.dist-info)/sboms
    mkdir "$boms"
    sed -E '/^ +--hash=/d; s/ \\$//' "docker/$name/requirements.txt" | "$tools/bin/cyclonedx-py" requirements - --pyproject "$project" --mc-type application \
        --output-reproducible --output-format JSON --output-file "$boms/vtpm-attest.cdx.json"
    "$tools/bin/wheel" pack --dest-dir "$out" "$unpacked" >/dev/null
done
sha256sum "$out"/*.whl
