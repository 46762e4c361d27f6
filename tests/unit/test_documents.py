"""Documents that name tests, files and each other: what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("docker/**/*.md"),
        *ROOT.glob("policies/**/*.md"),
    ]
)
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
_TEST = re.compile(r"`(tests/[\w./-]+?)(?:::([\w*]+))?`")
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(path: Path) -> set[str]:
    """Of the headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    plain = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_the_tests_that_a_document_names_are_there(path):
    for file, name in _TEST.findall(path.read_text()):
        assert (ROOT / file).exists(), f"{path.name} names {file}"
        if name:
            pattern = re.compile(r"def " + name.replace("*", r"\w*") + r"\(")
            files = [ROOT / file] if (ROOT / file).is_file() else (ROOT / file).rglob("*.py")
            assert any(pattern.search(one.read_text()) for one in files), f"{path.name} names {file}::{name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_links_between_documents_lead_somewhere(path):
    for target, anchor in _LINK.findall(path.read_text()):
        where = (path.parent / target).resolve() if target else path
        assert where.exists(), f"{path.name} links to {target}"
        if anchor and where.suffix == ".md":
            assert anchor in anchors(where), f"{path.name} links to {target}#{anchor}"
