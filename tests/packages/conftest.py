"""The package, built; and a Debian to put it into."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.demo import guest_root
from tests.conftest import ROOT
from tests.fake_verifier import FakeVerifier
from tests.packages.debian import DEB, Debian
from tests.packages.guests import UNITS, Guest, seal_token
from tests.real_guests import BOOT
from tests.swtpm import Swtpm, manufacture

PACKAGE = "vtpm-attest-agent"
TOOLS = ("dpkg-buildpackage", "dh", "lintian", "mmdebstrap")
CRYPTOGRAPHY = "python3-cryptography"
"""Recommended: what `unseal` needs."""
FOR_TESTS = ("libtss2-tcti-swtpm0", "systemd", "dbus", "cloud-init", CRYPTOGRAPHY)


def build() -> Path:
    done = subprocess.run(
        ["scripts/build-deb.sh", ".venv"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return ROOT / done.stdout.split()[-1]


@pytest.fixture(scope="session")
def deb() -> Path:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"SKIPPED: {', '.join(missing)}: not installed")
    return build()


@pytest.fixture(scope="session")
def debian(deb, tmp_path_factory) -> Debian:
    root = tmp_path_factory.mktemp("debian") / "root"
    depends = subprocess.run(
        ["dpkg-deb", "-f", deb, "Depends"], capture_output=True, text=True, check=True
    ).stdout
    needs = [part.split()[0].partition(":")[0] for part in depends.split(",")]
    release = next(
        line.partition("=")[2]
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    include = ",".join([*needs, *FOR_TESTS])
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={include}", release, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"SKIPPED: no Debian can be made here: {done.stderr[-500:]}")
    debian = Debian(root)
    debian.run("systemd-machine-id-setup")  # systemd-creds does not work for a machine without
    debian.write("etc/cloud/cloud-init.disabled", "")  # but for the test that is about it
    return debian


@pytest.fixture
def installed(debian, deb) -> Iterator[Debian]:
    shutil.copy(deb, debian.root / DEB.removeprefix("/"))
    debian.run("dpkg", "--install", DEB)
    yield debian
    debian.run("dpkg", "--purge", PACKAGE)


@pytest.fixture
def guest(installed, tmp_path) -> Iterator[Guest]:
    """What its kernel and firmware logged can be read by root alone, as on a machine. The token is sealed."""
    shutil.copytree(guest_root(tmp_path, 1, BOOT), installed.root / "guest")
    for path in (installed.root / "guest/sys").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o440)
    for name, text in UNITS.items():
        installed.write(f"etc/systemd/system/{name}.service", text)
    try:
        installed.run("systemctl", "enable", "attest-agent", *UNITS)
        made = manufacture(tmp_path / "tpm", tmp_path / "ca")
        with FakeVerifier(tmp_path) as verifier, Swtpm(made.state) as tpm:
            seal_token(installed, verifier.token)
            guest = Guest(installed, verifier, tpm.tcti)
            guest.configure()
            yield guest
    finally:
        installed.run("systemctl", "disable", *UNITS)
        for name in UNITS:
            (installed.root / f"etc/systemd/system/{name}.service").unlink()
        for path in ("guest", "etc/credstore.encrypted", "var/lib/private"):
            shutil.rmtree(installed.root / path, ignore_errors=True)
        (installed.root / "var/lib/vtpm-attest").unlink(missing_ok=True)
