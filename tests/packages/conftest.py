"""The package, built; and a Debian to put it into."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packages.debian import DEB, Debian

PACKAGE = "vtpm-attest-agent"
TOOLS = ("dpkg-buildpackage", "dh", "lintian", "mmdebstrap")
FOR_TESTS = ("libtss2-tcti-swtpm0", "systemd", "dbus")


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
    return Debian(root)


@pytest.fixture
def installed(debian, deb) -> Iterator[Debian]:
    shutil.copy(deb, debian.root / DEB.removeprefix("/"))
    debian.run("dpkg", "--install", DEB)
    yield debian
    debian.run("dpkg", "--purge", PACKAGE)
