"""The units that docs/secrets.md shows, under a real systemd beside the agent's service: who connects reads the secret."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest

from scripts.demo import Verifier, token
from tests import swtpm
from tests.conftest import ROOT
from tests.packages.debian import can_boot
from tests.real_guests import Operator, booted, guest
from tests.swtpm import manufacture, with_vendor_ca

pytestmark = [
    pytest.mark.slow,
    pytest.mark.swtpm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm is missing"),
    pytest.mark.skipif(not can_boot(), reason="SKIPPED: no root, or no namespaces and control groups"),
]
KEY = "a key of 64 bytes, or as many as it has; systemd-cryptsetup reads"
UNITS = re.findall(
    r"```ini\n# /(\S+/unseal-data\S+)\n(.*?)```", (ROOT / "docs" / "secrets.md").read_text(), re.DOTALL
)
READ = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("/run/unseal/data.sock")
    sys.stdout.write(connection.makefile().read())
"""


def test_a_socket_unit_gives_the_secret_to_whoever_connects(installed, tmp_path):
    with_vendor_ca(tmp_path)
    with Verifier.running(tmp_path) as running:
        verifier = replace(running, join_token=token(running.config, "join"))
        operator = Operator(verifier, token(verifier.config, "operator"))
        (tmp_path / "disk.key").write_text(KEY)
        operator.json("secret", "put", "disk-web", "--from-file", str(tmp_path / "disk.key"))
        operator.json("secret", "grant", "disk-web", "--policy", "uki-strict")
        with booted(manufacture(tmp_path / "guest1" / "tpm", tmp_path / "tpm-vendor-ca")) as tpm:
            shutil.copytree(guest(verifier, 1, tpm).root, installed.root / "guest")
            settings = {
                "server": verifier.url,
                "token": verifier.join_token,
                "tcti": tpm.tcti,
                "root": "/guest",
            }
            lines = [f'{key} = "{value}"\n' for key, value in settings.items()]
            installed.write("etc/vtpm-attest/agent.toml", "".join(lines))
            for path, text in UNITS:
                installed.write(path, text)
            installed.run("systemctl", "enable", "attest-agent", "unseal-data.socket")
            try:
                with installed.booted() as system:
                    system.wait_until("attested.target", "active")
                    for _ in range(2):
                        assert system.run("python3", "-c", READ).stdout == KEY, system.journal(
                            "unseal-data@*"
                        )
                    assert system.run("stat", "-c", "%a %U", "/run/unseal/data.sock").stdout == "600 root\n"
                    system.run("systemctl", "restart", "attest-agent")
                    system.wait_until("attest-agent.service", "active")
                    assert system.show("attest-agent.service", "StatusText").startswith("affirming, number 4")
            finally:
                installed.run("systemctl", "disable", "attest-agent", "unseal-data.socket")
                for path, _ in UNITS:
                    (installed.root / path).unlink()
                for path in ("guest", "var/lib/private"):
                    shutil.rmtree(installed.root / path, ignore_errors=True)
                (installed.root / "var/lib/vtpm-attest").unlink(missing_ok=True)
    assert len(UNITS) == 2
