"""Which attester a certificate names: odd and damaged certificates are refused, not stumbled over."""

from __future__ import annotations

import pytest

from tests.pki import EK_KEY, SUBJECT_ALT_NAME, Ca, extension, seq, tlv
from verifier.client.callers import Identified, Naming, named
from verifier.client.requirement import Denied, Refusal

NAMING = Naming(issuer="https://verifier.test/")
CA = Ca.root()


def uri(text):
    return tlv(0x86, text if isinstance(text, bytes) else text.encode())


def certificate(*extensions):
    return CA.ek(EK_KEY.public_key(), directory=b"", extra=extensions)


def san(*names):
    return extension(SUBJECT_ALT_NAME, seq(*names))


GOOD = "https://verifier.test/v1/attesters/att-1"


@pytest.mark.parametrize(
    "names",
    [[uri(GOOD)], [uri(GOOD), uri(GOOD)], [uri("spiffe://x/y"), uri(GOOD)], [tlv(0x82, b"host"), uri(GOOD)]],
)
def test_one_attester(names):
    assert named(NAMING, certificate(san(*names))) == Identified(attester_id="att-1", source="certificate")


WRONG = {
    "no names": certificate(),
    "two attesters": certificate(san(uri(GOOD), uri(GOOD + "x"))),
    "names twice": certificate(san(uri(GOOD)), san(uri(GOOD + "x"))),
    "empty id": certificate(san(uri(GOOD.removesuffix("att-1")))),
    "line end": certificate(san(uri(GOOD + "\n"))),
    "not ascii": certificate(san(uri(b"https://verifier.test/v1/attesters/\xff"))),
    "query": certificate(san(uri(GOOD + "?x"))),
    "another case": certificate(san(uri(GOOD.replace("https", "HTTPS")))),
    "unheard-of kind of name": certificate(san(tlv(0xA3, seq()), uri(GOOD))),
    "names that are none": certificate(extension(SUBJECT_ALT_NAME, b"\x05\x00")),
    "cut": certificate(san(uri(GOOD)))[:-3],
    "nothing": b"",
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_everything_else_is_refused(what):
    answer = named(NAMING, WRONG[what])
    assert isinstance(answer, Denied)
    assert answer.refusal is Refusal.INVALID
