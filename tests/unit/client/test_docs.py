"""The programs in docs/relying-parties.md are programs."""

from __future__ import annotations

import re

from tests.conftest import ROOT
from verifier.client import AttestationClient
from verifier.client.requirement import Refusal

PAGE = (ROOT / "docs" / "relying-parties.md").read_text()


def test_every_program_runs_as_it_stands():
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(programs) == 2
    names = {"client": AttestationClient("https://verifier.example:8443", "vta1.x")}
    for program in programs:
        exec(compile(program, "docs/relying-parties.md", "exec"), names)
    assert callable(names["may_mount"])
    assert len(names["app"].middlewares) == 1


def test_every_denial_has_its_line():
    assert all(f"`{refusal}`" in PAGE for refusal in Refusal)
    for refusal in Refusal:
        (line,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{refusal}`" in line]
        assert f"| {int(refusal.status)} |" in line
