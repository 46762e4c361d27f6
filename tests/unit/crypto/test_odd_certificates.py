"""Odd certificates fare the same with either reader, and from whatever they are wrapped in."""

from __future__ import annotations

import zlib

import pytest

from tests import pki
from tests.conftest import shared_path
from tests.odd_certificates import CASES, ROOT, Case
from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.ek import validate_ek
from verifier.crypto.nv_content import unwrap
from verifier.errors import EvidenceError, MalformedInputError
from verifier.reasons import Reason

EK = ROOT.ek()
ANCHORS = TrustAnchors.from_der([ROOT.der])


@pytest.mark.usefixtures("either_reader")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_either_reader_leads_to_the_same_end(case: Case):
    said = "ok"
    try:
        validate_ek(
            case.certificate,
            intermediates=case.helpers,
            anchors=TrustAnchors.from_der(case.anchors),
            ek_public=None,
            now=case.at,
        )
    except EvidenceError as error:
        said = str(error)
    assert said == "ok" if case.words is None else case.words in said


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


WRAPPED = {
    "0xff padding": (EK + b"\xff" * 300, "300 bytes of padding"),
    "0x00 padding": (EK + bytes(300), "300 bytes of padding"),
    "TPM2B": (sized(EK), "came in a TPM2B"),
    "TPM2B in a larger index": (sized(EK) + b"\xff" * 99, "99 bytes of padding"),
    "TPM2B over the padding": (sized(EK + b"\xff" * 99), "99 bytes of padding"),
    "TCG header": (b"\x10\x01\x00" + sized(EK), "came in a TCG_PCCLIENT_STORED_CERT"),
    "TCG header with its inner tag": (b"\x10\x01\x00" + sized(b"\x10\x02" + EK), "TCG_PCCLIENT_STORED_CERT"),
    "PEM": (pki.pem("CERTIFICATE", EK), "came in PEM"),
}


@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_what_is_around_a_certificate_is_taken_off_and_noted(content):
    data, words = content
    valid = validate_ek(data, anchors=ANCHORS, ek_public=None, now=pki.NOW)
    assert valid.certificate == EK
    assert words in "; ".join(valid.profile.notes)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "missing or cut off"),
        (zlib.compress(EK), "begins with 0x78"),
        (sized(EK)[:-1], "bytes, of which"),
        (sized(EK) + b"x", "not padding"),
        (sized(EK) + b"\xff\x00", "not padding"),
        (sized(EK + b"x"), "not padding"),
        (b"\x10\x01\x00\x04\x00" + EK[:-4], "of which"),
        (b"\x10\x01\x01" + sized(EK), "begins with 0x10"),
        (pki.pem("CERTIFICATE", EK) * 2, "PEM with 2 certificates"),
        (pki.pem("PUBLIC KEY", EK), "PEM with 0 certificates"),
        (b"-----BEGIN CERTIFICATE-----\nAA", "PEM"),
        (sized(sized(EK)), "begins with"),
        (bytes(70_000), "at most"),
    ],
)
def test_anything_else_around_it_is_malformed(data, words):
    with pytest.raises(MalformedInputError, match=words) as caught:
        unwrap(data)
    assert caught.value.reason is Reason.EK_CERTIFICATE_MALFORMED


def test_the_real_certificate_with_3087_bytes_of_padding():
    """Azure's AK certificate, as its NV index holds it."""
    folder = shared_path("corpus/flashbots_attested-tls-proxy/certs")
    content = unwrap((folder / "attr_azure-tdx-1764662251380464271_db405f1b.der").read_bytes())
    assert content.padding == 3087
    assert content.der == (folder / "cert-ak_azure.der").read_bytes()
