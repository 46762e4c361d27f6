"""The agent's whole protocol over TBS: ctypes and the TCTI are the product's, `tbs.dll` is a stand-in over swtpm."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import main
from agent.collect.windows import WindowsSources
from agent.errors import TpmError
from agent.esapi import open_tpm
from agent.windows.tbs import Code
from tests import swtpm
from tests.conftest import ROOT, shared_path
from tests.fake_verifier import FakeVerifier
from tests.windows import Registry, compiled

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or its tools are not installed"
    ),
]
LOG = ROOT / "policies" / "evidence" / "uki-sb-on" / "binary_bios_measurements"
REAL = "google_go-attestation/windows_gcp_shielded_vm.eventlog.bin"
VERSION = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> swtpm.Manufactured:
    folder = tmp_path_factory.mktemp("swtpm")
    return swtpm.manufacture(folder / "tpm", folder / "ca")


@pytest.fixture
def machine(made, tmp_path):
    with swtpm.Swtpm(made.copy(tmp_path / "tpm").state) as running:
        yield running


@pytest.fixture
def library(machine, tmp_path, monkeypatch):
    """What the agent loads for `tbs.dll`."""
    loaded = compiled(tmp_path)
    loaded.test_set_port(machine.port)
    monkeypatch.setattr("agent.windows.tbs.load_library", lambda: loaded)
    return loaded


@pytest.fixture
def guest(monkeypatch, tmp_path):
    """A Windows guest of this log, with its registry and firmware table; returns its root."""

    def install(log: bytes) -> Path:
        machine = Registry({f"{VERSION}\\ProductName": "Windows Server 2022 Standard"}, log=log)
        monkeypatch.setattr("agent.commands.sources_for", lambda root: WindowsSources(root, machine))
        monkeypatch.setattr(
            "agent.bundle.sources_for", lambda root: WindowsSources(root, machine), raising=False
        )
        return tmp_path

    return install


def test_enrolment_and_attestation_over_tbs(library, machine, guest, tmp_path, capsys):
    root = guest(LOG.read_bytes())
    options = ["--tcti", "tbs", "--state-dir", str(tmp_path / "state"), "--root", str(root)]
    with FakeVerifier(tmp_path, selection=tuple(range(16))) as verifier:
        assert main(["enroll", "--server", verifier.url, "--token", verifier.token, *options]) == 0
        assert main(["attest", "--once", "--json", *options]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["verdict"]["status"] == "affirming"
        (request,) = [message for path, message in verifier.seen if path == "/v1/attestations"]
    assert request.boot_log.content == LOG.read_bytes()
    assert request.identity.os == "Windows Server 2022 Standard"
    assert library.test_open_contexts() == 0, "every context is given back"


def test_the_context_is_given_back_at_the_end_and_when_a_command_fails(library, machine):
    with open_tpm("tbs") as tpm:
        assert library.test_open_contexts() == 1
        assert tpm.properties().banks
        machine.stop()
        with pytest.raises(TpmError, match="Tbsip_Submit_Command failed"):
            tpm.properties()
    assert library.test_open_contexts() == 0


def test_a_command_that_windows_blocks_is_named_as_that(library):
    with open_tpm("tbs") as tpm:
        library.test_fail_next(ctypes.c_uint32(Code.COMMAND_BLOCKED))
        with pytest.raises(TpmError, match="Windows blocks this TPM command") as caught:
            tpm.properties()
        assert caught.value.rc == Code.COMMAND_BLOCKED
        assert tpm.properties().banks, "the next command passes, and the failure before is forgotten"


def test_a_real_windows_boot_is_judged_as_what_it_was(library, machine, guest, tmp_path, capsys):
    """A log of real Windows, its PCRs in the TPM, quoted over TBS; the product's own tools collect and judge it."""
    log = shared_path("corpus") / REAL
    if not log.exists():
        pytest.skip(f"SKIPPED FOR WANT OF DATA: ../shared/corpus/{REAL} is absent, so this check did not run")
    swtpm.replay_boot_log(machine.tcti, log.read_bytes())
    root = guest(log.read_bytes())
    bundle = tmp_path / "bundle.json"
    options = ["--tcti", "tbs", "--state-dir", str(tmp_path / "state"), "--root", str(root)]
    assert main(["collect", "--out", str(bundle), "--bank", "sha1", *options]) == 0
    command = [sys.executable, "-m", "verifier.cli.attestctl", "appraise", bundle, "--ak-trusted", "--json"]
    command += ["--policy", ROOT / "policies" / "permissive"]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60, check=False)
    appraisal = json.loads(done.stdout)
    codes = {finding["code"] for finding in appraisal["findings"]}
    print(codes, done.returncode)
    assert not {code for code in codes if "mismatch" in code}
