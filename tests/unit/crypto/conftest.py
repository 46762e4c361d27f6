"""Both certificate readers must lead to the same judgement."""

from __future__ import annotations

import pytest

from verifier.crypto import cert_reader, paths
from verifier.crypto.strict import NotStrictError


def _forget() -> None:
    cert_reader.parse_authority.cache_clear()
    paths._ca_link.cache_clear()


@pytest.fixture(params=["cryptography", "asn1crypto"])
def either_reader(request, monkeypatch):
    """Run the test once with each reader: the second by making the first refuse everything."""

    def refuse(envelope):
        raise NotStrictError("test of the second reader")

    _forget()
    if request.param == "asn1crypto":
        monkeypatch.setattr(cert_reader, "read_strict", refuse)
    yield request.param
    _forget()
