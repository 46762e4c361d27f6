"""Whom to ask for a missing issuer: whoever sends a certificate chooses the URL, so nearly nobody."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tests import pki
from verifier.crypto.aia import (
    MAX_REPLY,
    MAX_URL,
    FetchRules,
    is_public,
    issuer_urls,
    missing_issuer_urls,
    read_issuers,
)
from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.cert_reader import parse_certificate

RULES = FetchRules(
    frozenset({"pki.example", "*.ca.example", "odd.example:8080", "10.0.0.1", "93.184.216.34"})
)
URL = "http://pki.example/issuer.cer"
AIA = "1.3.6.1.5.5.7.1.1"
CA_ISSUERS, OCSP = "1.3.6.1.5.5.7.48.2", "1.3.6.1.5.5.7.48.1"
ROOT = pki.Ca.root()
MIDDLE = ROOT.below("Middle")


def access(*entries: tuple[str, int, bytes]) -> bytes:
    """authorityInfoAccess with these methods and locations (tag, content)."""
    listed = (pki.seq(pki.oid(method), pki.tlv(tag, content)) for method, tag, content in entries)
    return pki.extension(AIA, pki.seq(*listed))


def at(*urls: str) -> bytes:
    return access(*((CA_ISSUERS, 0x86, url.encode()) for url in urls))


def leaf(ca: pki.Ca, *extensions: bytes) -> bytes:
    return ca.ek(extra=extensions)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        (URL, True),
        ("https://PKI.example/x", True),
        ("http://pki.example:80/x", True),
        ("http://pki.example:8080/x", False),
        ("http://odd.example:8080/x", True),
        ("http://odd.example/x", False),
        ("http://a.ca.example/x", True),
        ("http://ca.example/x", False),
        ("http://evilca.example/x", False),
        ("http://pki.example.evil/x", False),
        ("http://93.184.216.34/x", True),
        ("http://10.0.0.1/x", False),
        ("ftp://pki.example/x", False),
        ("ldap://pki.example/x", False),
        ("file:///etc/passwd", False),
        ("http://user@pki.example/x", False),
        ("http://evil\\@pki.example/x", False),
        ("http://pki.example/a b", False),
        ("http://pki.example/\x00", False),
        ("http://pki.exämple/x", False),
        ("http://pki.example:0/x", False),
        ("http://pki.example:99999/x", False),
        ("http://[::1/x", False),
        ("http:///x", False),
        ("http://pki.example/" + "x" * MAX_URL, False),
        ("", False),
    ],
)
def test_only_listed_hosts_are_asked_in_one_unambiguous_spelling(url: str, allowed: bool) -> None:
    assert RULES.allow(url) is allowed
    assert not FetchRules(frozenset()).allow(url), "no host listed: nobody is asked"


def test_a_private_address_is_asked_only_where_that_is_written_out() -> None:
    assert FetchRules(RULES.hosts, private=True).allow("http://10.0.0.1/x")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff0e::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("64:ff9b::7f00:1", False),
    ],
)
def test_an_address_that_leads_inside_is_not_public_however_it_is_wrapped(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_urls_of_issuers_are_read_and_nothing_else() -> None:
    other = access(
        (OCSP, 0x86, b"http://ocsp.example"), (CA_ISSUERS, 0x82, b"dns"), (CA_ISSUERS, 0x86, URL.encode())
    )
    assert issuer_urls(parse_certificate(leaf(MIDDLE, other))) == (URL,)
    assert issuer_urls(parse_certificate(leaf(MIDDLE))) == ()
    many = issuer_urls(parse_certificate(leaf(MIDDLE, at(*(f"{URL}?{number}" for number in range(9))))))
    assert len(many) == 4, "a certificate cannot make us ask without end"


def test_a_damaged_extension_names_no_url() -> None:
    assert issuer_urls(parse_certificate(leaf(MIDDLE, pki.extension(AIA, b"\x30\x05\x30\x03\x06\x01")))) == ()


def missing(certificate: bytes, *helpers: bytes, anchors: TrustAnchors | None = None) -> tuple[str, ...]:
    trusted = TrustAnchors.from_der([ROOT.der]) if anchors is None else anchors
    return missing_issuer_urls([certificate], helpers=helpers, anchors=trusted, rules=RULES)


def test_a_missing_intermediate_is_asked_for_where_its_holder_says() -> None:
    assert missing(leaf(MIDDLE, at(URL, "http://evil.example/x"))) == (URL,)
    assert missing(leaf(MIDDLE, at(URL)) + b"\xff" * 50) == (URL,), "as read from NV, padding and all"


def test_nobody_is_asked_where_an_anchor_is_reached() -> None:
    assert missing(leaf(ROOT, at(URL))) == ()
    assert missing(leaf(MIDDLE, at(URL)), MIDDLE.der) == ()


def test_the_last_certificate_at_hand_is_asked_not_the_first() -> None:
    upper = pki.Ca.root("Elsewhere").below("Upper")
    assert missing(leaf(upper, at(URL)), upper.der) == (), "the upper one names nobody"


@pytest.mark.parametrize("damaged", [b"", b"\x30", b"\xff" * 100])
def test_what_is_no_certificate_is_passed_over(damaged: bytes) -> None:
    assert missing(damaged, damaged) == ()


def test_issuers_come_as_der_pem_or_pkcs7() -> None:
    der = MIDDLE.der
    bundle = pkcs7.serialize_certificates([x509.load_der_x509_certificate(der)], Encoding.DER)
    assert read_issuers(der) == (der,)
    assert read_issuers(pki.pem("CERTIFICATE", der) * 2) == (der, der)
    assert read_issuers(bundle) == (der,)
    assert read_issuers(pki.pem("PKCS7", bundle)) == (der,)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\x30\x82", b"-----BEGIN CERTIFICATE-----\n!!", b"0" * (MAX_REPLY + 1)]
)
def test_an_answer_that_is_no_certificate_is_none(body: bytes) -> None:
    assert read_issuers(body) == ()


def test_damaged_pkcs7_is_none() -> None:
    bundle = pkcs7.serialize_certificates([x509.load_der_x509_certificate(MIDDLE.der)], Encoding.DER)
    assert read_issuers(bundle[:60]) == ()


TWICE = pki.Ca.root("Twice", extra=(pki.basic_constraints(ca=True),)).der
SIGNED_DATA = "1.2.840.113549.1.7.2"


def in_pkcs7(*certificates: bytes) -> bytes:
    """As a CA would write them that does not look."""
    data = pki.seq(pki.oid("1.2.840.113549.1.7.1"))
    signed = pki.seq(
        pki.integer(1), pki.tlv(0x31), data, pki.tlv(0xA0, b"".join(certificates)), pki.tlv(0x31)
    )
    return pki.seq(pki.oid(SIGNED_DATA), pki.tlv(0xA0, signed))


@pytest.mark.parametrize(
    "body",
    [TWICE, pki.pem("CERTIFICATE", TWICE), in_pkcs7(TWICE), pki.pem("PKCS7", in_pkcs7(MIDDLE.der, TWICE))],
    ids=["DER", "PEM", "PKCS7", "PKCS7 in PEM"],
)
def test_an_issuer_with_an_extension_twice_is_no_issuer_and_no_fault(body: bytes) -> None:
    issuers = read_issuers(body)
    assert set(issuers) <= {TWICE, MIDDLE.der}
    below = pki.Ca.root("Twice").ek()
    assert missing(below, *issuers) == ()
