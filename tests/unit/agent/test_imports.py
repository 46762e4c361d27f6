"""The boot path stays small: what `attest --once` imports, in a fresh interpreter that really attests."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.fake_verifier import FakeVerifier

SLOW = {
    "aiohttp",
    "asyncio",
    "concurrent",
    "cryptography",
    "json",
    "logging",
    "pydantic",
    "requests",
    "sqlalchemy",
    "tempfile",
    "threading",
    "tomllib",
    "xml",
    "yaml",
}
OTHER_COMMANDS = {"agent.daemon", "agent.bundle", "agent.status", "agent.collect.windows"}

# Everything up to the TPM; what the adapter loads is tpm2-pytss's doing and looked at separately.
PROGRAM = """
import sys
from agent import commands
from agent.cli import main
def no_tpm(settings):
    raise commands.AgentError("no TPM in this test", "none")
commands.open_tpm = no_tpm
main(sys.argv[1:])
print(sorted(sys.modules), file=sys.stderr)
"""


def modules_after(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))


def test_attest_once_loads_nothing_slow_up_to_the_tpm(tmp_path):
    """Fetching the CA, parsing settings and opening the TPM are behind it when it stops."""
    with FakeVerifier(tmp_path) as verifier:
        loaded = modules_after(
            "attest",
            "--once",
            "--server",
            verifier.url,
            "--token",
            verifier.token,
            "--state-dir",
            str(tmp_path / "s"),
        )
        assert verifier.connections == 1
    baseline = modules_of_an_empty_interpreter()
    assert {name for name in loaded - baseline if name.partition(".")[0] in SLOW} == set()
    assert loaded & OTHER_COMMANDS == set()
    assert "tpm2_pytss" not in loaded
    assert "verifier" not in loaded


def modules_of_an_empty_interpreter() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_adapter_adds_only_what_tpm2_pytss_itself_needs():
    pytest.importorskip("tpm2_pytss")
    code = "import sys, agent.esapi as e\ntry: e.open_tpm('swtpm:port=1')\nexcept Exception: pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "tpm2_pytss.ESAPI" in loaded
    assert not {"asyncio", "aiohttp", "tpm2_pytss.utils"} & loaded


def after_opening_a_tpm(code: str, before: str = "") -> str:
    """What `code` prints in an interpreter that tried to open a TPM which is not there."""
    pytest.importorskip("tpm2_pytss")
    opening = (
        "import agent.esapi as e\ntry: e.open_tpm('swtpm:port=1')\nexcept e.NoTpmError: pass\nimport sys"
    )
    program = f"{before}\n{opening}\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_adapter_leaves_out_cryptography():
    loaded = after_opening_a_tpm("print(*sys.modules)").split()
    assert "tpm2_pytss.types" in loaded
    assert [name for name in loaded if name.partition(".")[0] == "cryptography"] == []


def test_cryptography_can_be_had_afterwards_and_is_the_real_one():
    code = "from cryptography.hazmat.primitives.hashes import SHA256; print(SHA256().digest_size)"
    assert after_opening_a_tpm(code) == "32"


def test_what_needs_cryptography_says_so():
    code = """
from tpm2_pytss import TPM2B_PUBLIC
try: TPM2B_PUBLIC.from_pem(b"-----BEGIN PUBLIC KEY-----")
except NotImplementedError as error: print(error)
"""
    assert "without cryptography" in after_opening_a_tpm(code)


def test_a_program_that_has_cryptography_keeps_it():
    code = "import tpm2_pytss.internal.crypto as c, cryptography; print(c.rsa is sys.modules[c.rsa.__name__])"
    assert after_opening_a_tpm(code, before="import cryptography.hazmat.primitives.asymmetric.rsa") == "True"
