"""The shell commands of docs/transparency.md check a proof without any of this project's programs."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from tests.unit.transparency.test_entries import GOOD, bundle_of
from tests.unit.transparency.test_notes import key_of

SCRIPT = re.search(r"## By hand.*?```sh\n(.*?)```", (ROOT / "docs/transparency.md").read_text(), re.DOTALL)
TOOLS = ("jq", "openssl", "xxd", "bash")
pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS),
    reason=f"NOT TESTED: one of {', '.join(TOOLS)} is missing",
)


def by_hand(folder, bundle, key) -> str:
    (folder / "proof.json").write_bytes(bundle)
    done = subprocess.run(
        ["bash", "-c", SCRIPT[1]], cwd=folder, env={"KEY": key, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize(("index", "size"), [(700, 1000), (999, 1000), (0, 1), (4, 5), (2, 3), (1, 2)])
def test_a_proof_is_checked_by_hand(tmp_path, index, size):
    said = by_hand(tmp_path, bundle_of(GOOD, index, size).encode(), key_of(1).key.encode())
    assert "the entry is in the tree" in said
    assert "Signature Verified Successfully" in said


def test_what_does_not_hold_does_not_by_hand_either(tmp_path):
    good = bundle_of(GOOD).encode()
    said = by_hand(tmp_path, good.replace(b"twice", b"never"), key_of(1).key.encode())
    assert "in the tree" not in said
    said = by_hand(tmp_path, good, key_of(2).key.encode())
    assert "Signature Verified" not in said
