"""What the product carries: pinned, hashed, under licences that fit."""

from __future__ import annotations

import re

import pytest

from scripts.licences import ACCEPTED, carried, licence, parts
from tests.conftest import ROOT

PINNED = [
    ROOT / name
    for name in (
        "requirements.txt",
        "requirements-build.txt",
        "requirements-sbom.txt",
        "requirements-audit.txt",
        "docker/verifier/requirements.txt",
        "docker/agent/requirements.txt",
    )
]


@pytest.mark.parametrize("path", PINNED, ids=[str(path.relative_to(ROOT)) for path in PINNED])
def test_every_line_is_an_exact_version_with_its_hashes(path):
    entries = re.split(r"\n(?=\S)", re.sub(r"^ *#.*\n", "", path.read_text(), flags=re.MULTILINE).strip())
    for entry in entries:
        name, *hashes = [part.strip(" \\") for part in entry.splitlines()]
        assert re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+-]+( ;.*)?", name.partition(" ;")[0]), name
        assert hashes, f"{name} has no hash"
        assert all(one.startswith("--hash=sha256:") for one in hashes), name


@pytest.mark.parametrize("name", sorted(carried()))
def test_licences_fit(name):
    assert parts(licence(name)) <= ACCEPTED


def test_a_licence_that_is_not_understood_is_named(monkeypatch):
    monkeypatch.setattr(
        "scripts.licences.metadata.metadata",
        lambda name: __import__("email").message_from_string("License: as you like"),
    )
    with pytest.raises(LookupError, match="msgspec"):
        licence("msgspec")
