"""Revocation lists."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests import pki
from tests.fuzz.corpora import corpus
from tests.fuzz.targets import Bound
from tests.fuzz.targets.certificate import ANCHORS, GOOD, ROOT
from verifier.crypto.ek import validate_ek
from verifier.crypto.revocation import parse_crl
from verifier.errors import EvidenceError, MalformedInputError

RAISES = (MalformedInputError,)
RUNS = 400
MEMORY = Bound(300, 2 << 20)
CALLS = Bound(400, 100_000)


def seeds() -> Iterator[bytes]:
    yield pki.crl(ROOT)
    yield pki.crl(ROOT, [1, 2, 3])
    yield from corpus("crl")


def target(data: bytes) -> None:
    with contextlib.suppress(EvidenceError):
        validate_ek(GOOD[0], anchors=ANCHORS, crls=[data], ek_public=None, now=pki.NOW)
    found = parse_crl.__wrapped__(data)
    assert found.issuer_text is not None
    assert found.this_update.tzinfo is not None
