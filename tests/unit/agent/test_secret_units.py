"""The units that docs/secrets.md shows: systemd itself reads them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "secrets.md").read_text()
BLOCKS = re.findall(r"```ini\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="SKIPPED: systemd-analyze is not installed"
)
def test_systemd_finds_nothing_wrong_with_them(tmp_path):
    assert sorted(Path(name).name for name, _ in BLOCKS) == [
        "data-volume.service",
        "unseal-data.socket",
        "unseal-data@.service",
    ]
    for name, text in BLOCKS:
        here = text.replace("/usr/bin/attest-agent", str(Path(sys.executable).with_name("attest-agent")))
        here = here.replace("/usr/sbin/cryptsetup", shutil.which("cryptsetup") or "/bin/true")
        (tmp_path / Path(name).name).write_text(here)
    made = [str(tmp_path / Path(name).name).replace("@.", "@1.") for name, _ in BLOCKS]
    (tmp_path / "unseal-data@1.service").write_text((tmp_path / "unseal-data@.service").read_text())
    done = subprocess.run(
        ["systemd-analyze", "verify", *made],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
