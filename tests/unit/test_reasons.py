"""Every code is explained, has a remedy, and stands in the published dictionary as the code has it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from verifier.reason_texts import ENTRIES
from verifier.reasons import Reason


@pytest.mark.parametrize("reason", list(Reason))
def test_every_code_has_a_title_an_explanation_and_a_remedy(reason: Reason) -> None:
    entry = ENTRIES[reason]
    assert entry.title
    assert entry.explanation.endswith(".")
    assert entry.remedy.endswith(".")


def test_the_documents_made_from_code_are_current() -> None:
    """docs/reasons.md, docs/claims.md, docs/lint.md and docs/policy.schema.json."""
    command = [sys.executable, "-m", "scripts.generate_docs", "--check"]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
