"""The systemd units: systemd itself reads them, and says how much a service could do to the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

UNITS = ROOT / "agent" / "systemd"
NAMES = ["attest-agent.service", "attested.service", "attested.target", "attested.path"]

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="SKIPPED: systemd-analyze is not installed"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The units as they lie in a guest, but for where the command is and for the manual, which a package brings."""
    folder = tmp_path_factory.mktemp("units")
    command = Path(sys.executable).with_name("attest-agent")
    for name in NAMES:
        text = (UNITS / name).read_text()
        text = text.replace("ExecStart=attest-agent", f"ExecStart={command}")
        (folder / name).write_text(re.sub(r"^Documentation=man:.*\n", "", text, flags=re.MULTILINE))
    return folder


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )


def test_all_units_of_the_folder_are_known_here():
    assert sorted(path.name for path in UNITS.iterdir()) == sorted(NAMES)


def test_systemd_finds_nothing_wrong_with_them(installed):
    done = analyze("verify", *(str(installed / name) for name in NAMES))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "most"), [("attest-agent.service", 18), ("attested.service", 12)])
def test_a_service_could_do_little_to_its_machine(installed, name, most):
    """`most` in tenths: systemd's own measure of exposure, 0 to 100. What makes up the rest is in ADR 0017."""
    done = analyze("security", "--offline=yes", f"--threshold={most}", str(installed / name))
    assert done.returncode == 0, done.stdout


def test_the_agent_has_one_capability_and_one_device(installed):
    done = analyze("security", "--offline=yes", str(installed / "attest-agent.service"))
    lacking = re.findall(r"^✗ (\S+)", done.stdout, re.MULTILINE)
    assert [one for one in lacking if one.startswith("CapabilityBoundingSet=")] == [
        "CapabilityBoundingSet=~CAP_(DAC_*|FOWNER|IPC_OWNER)"
    ]
    lines = (UNITS / "attest-agent.service").read_text().splitlines()
    assert [line for line in lines if line.startswith("DeviceAllow=")] == ["DeviceAllow=/dev/tpmrm0 rw"]
    assert "CapabilityBoundingSet=CAP_DAC_READ_SEARCH" in lines
