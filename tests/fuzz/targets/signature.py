"""TPMT_SIGNATURE: as `attest`."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.corpora import captured, corpus
from tests.fuzz.targets.attest import outcome
from tests.simulator import RSA_AK, RSA_EK, SoftwareTpm, marshal
from verifier.errors import MalformedInputError, UnsupportedError
from verifier.tcg import signature as subject

RAISES = (MalformedInputError, UnsupportedError)
RUNS = 2000


def seeds() -> Iterator[bytes]:
    for tpm in (SoftwareTpm("fuzz"), SoftwareTpm("fuzz", ak=RSA_AK, ek=RSA_EK)):
        yield tpm.quote(bytes(32), {"sha256": range(16)})[1]
    yield from captured("quote_*.sig")
    yield from corpus("quote-signature")


def target(data: bytes) -> None:
    assert outcome(subject.parse_signature, data) == outcome(subject._parse_any, data)
    read = subject.parse_signature(data)
    if isinstance(read, subject.RsaSignature):
        head = marshal.u16(read.scheme.value) + marshal.u16(read.hash_alg.tpm_id)
        assert head + marshal.tpm2b(read.signature) == data
