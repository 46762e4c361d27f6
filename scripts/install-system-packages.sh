#!/usr/bin/env bash
# usage: install-system-packages.sh [test|deb|images|peer|vm]   Debian packages this project needs: the TPM library the agent is built against,
# a software TPM for the demo, and what Python needs to build and to make a virtual environment. With `test`, what only the
# tests need: a PostgreSQL server and a Prometheus (they start their own), a PKCS#11 token in software, a clock that jumps (faketime), cryptsetup, a browser, nginx,
# an ACME server, shells (completion), and what checks proofs by hand. With `deb`, what makes and tries the Debian package. With `peer`, what Keylime loads at run
# time, for the comparison. With `vm`, what builds and boots guests (docs/vm-tests.md). With `images`, what
# builds and runs images without a container engine.
set -euo pipefail

packages=(libtss2-dev swtpm swtpm-tools tpm2-tools pkg-config gcc python3-dev python3-venv openssl ca-certificates)
[ "${1:-}" != test ] || packages=(postgresql softhsm2 faketime cryptsetup-bin chromium fonts-dejavu-core nginx-light libnginx-mod-stream prometheus pebble zsh fish jq xxd)
[ "${1:-}" != deb ] || packages=(dpkg-dev debhelper dh-python fakeroot lintian mmdebstrap libtss2-dev python3-dev pkg-config gcc)
[ "${1:-}" != peer ] || packages=(tpm2-tools libefivar1)
[ "${1:-}" != vm ] || packages=(qemu-system-x86 qemu-utils ovmf mmdebstrap systemd-boot-efi sbsigntool binutils busybox-static
    mtools gdisk e2fsprogs cpio kmod zstd)
[ "${1:-}" != images ] || packages=(buildah podman runc mmdebstrap nginx-light libnginx-mod-stream postgresql)
missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "error: need root or sudo to install: ${missing[*]}" >&2; exit 1; }
    sudo=(sudo)
fi
echo "installing Debian packages: ${missing[*]}" >&2
# The tests start a server of their own; a system-wide one is not for us to create.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    "${sudo[@]}" mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | "${sudo[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
# Likewise: the package would start a Prometheus of its own (systemctl unmask prometheus, to have one).
if [[ " ${missing[*]} " = *" prometheus "* && -d /etc/systemd/system ]]; then
    "${sudo[@]}" ln -sf /dev/null /etc/systemd/system/prometheus.service
fi
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
