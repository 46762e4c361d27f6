#!/usr/bin/env bash
# usage: build-deb.sh VENV   Debian package of the agent: build/*.deb. Made of the files of this repository and of three
# pinned, hash-checked libraries; those are fetched and built once, into build/deb/libs-*, and need no network after that.
# The same files give the same package, byte for byte.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
version=$(sed -nE 's/^VERSION: Final = "(.*)"$/\1/p' agent/version.py)
python=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
theirs=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$python" != "$theirs" ]; then
    echo "error: $venv has Python $python, this Debian $theirs: the package is for the release it is built on; make PYTHON=python$theirs" >&2
    exit 1
fi
export LC_ALL=C TZ=UTC0

# --- the libraries
pins=$(awk '/^[a-z0-9_.-]+==/ { keep = /^(msgspec|cffi|tpm2-pytss)==/ } keep' requirements.txt | sed 's/ *#.*//')
libs=build/deb/libs-$(printf '%s\n%s\n' "$pins" "$python" | cat - "$0" | sha256sum | cut -c1-16)
if [ ! -d "$libs" ]; then
    echo "fetching and building the libraries of the package" >&2
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    # Without FAPI and policy, which the agent does not use: they would pull curl, GnuTLS and Kerberos into every guest.
    printf '#!/bin/sh\ncase " $* " in *tss2-fapi*|*tss2-policy*|*tss2-tcti-spi*) exit 1 ;; esac\nexec pkg-config "$@"\n' >"$made/pkg-config"
    chmod +x "$made/pkg-config"
    printf '%s\n' "$pins" >"$made/pins.txt"
    # Debian's flags and nothing of how the interpreter in $venv was built; no path, so that the result is the same anywhere.
    PKG_CONFIG=$made/pkg-config CC=cc LDSHARED="cc -shared -Wl,-z,relro,-z,now" \
        CFLAGS="-O2 -g0 -fstack-protector-strong -D_FORTIFY_SOURCE=2" "$venv/bin/python" -m pip --disable-pip-version-check --quiet install \
        --no-deps --require-hashes --no-build-isolation --no-binary tpm2-pytss --no-cache-dir --no-compile \
        --target "$made/all" -r "$made/pins.txt"
    mkdir "$made/libs"
    mv "$made"/all/{msgspec,tpm2_pytss,_cffi_backend*} "$made/libs"
    mkdir -p build/deb
    chmod -R u+rwX,go+rX,go-w "$made/libs"
    mv "$made/libs" "$libs"
fi

# --- the source tree
tree=build/deb/vtpm-attest-agent-$version
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z agent | xargs -0 cp -a --parents -t "$tree"
cp -a "$tree/agent/debian" "$tree/debian"
cp -a "$libs" "$tree/libs"
find "$tree" -type d -exec chmod 755 {} + -o -type f -exec chmod u+rw,go+r,go-w {} +

# --- the package; its times are those of the changelog (SOURCE_DATE_EPOCH)
(cd "$tree" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >../build.log 2>&1) || { tail -30 build/deb/build.log >&2; exit 1; }
mv build/deb/*.deb build/
rm -rf "$tree" build/deb/*.changes build/deb/*.buildinfo
echo build/vtpm-attest-agent_"$version"_"$(dpkg --print-architecture)".deb
