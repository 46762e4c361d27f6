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


def test_the_published_dictionary_is_current() -> None:
    result = subprocess.run([sys.executable, "scripts/generate_docs.py", "--check"], cwd=ROOT, check=False)
    assert result.returncode == 0, "docs/reasons.md is out of date: run scripts/generate_docs.py"
