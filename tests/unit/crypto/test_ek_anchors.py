"""Sets of trust anchors: what may be in one, how it is read and named."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from tests import pki
from verifier.crypto.anchors import TrustAnchors, split_bundle
from verifier.crypto.cert_reader import parse_certificate
from verifier.errors import EvidenceError, MalformedInputError, RefusedError
from verifier.reasons import Reason

ROOT = pki.Ca.root()
SUB = ROOT.below("Sub")


def test_two_roots_with_one_name_are_two_anchors():
    twins = [pki.Ca.root("CA", seed=f"vmca {n}").der for n in range(2)]
    anchors = TrustAnchors.from_der([*twins, twins[0]])
    assert len(anchors) == 2
    assert {anchor.der for anchor in anchors} == set(twins)
    assert all(parse_certificate(der) in anchors for der in twins)
    assert parse_certificate(ROOT.der) not in anchors
    assert ROOT.der not in anchors


def test_a_set_is_named_by_what_is_in_it():
    forward, backward = TrustAnchors.from_der([ROOT.der, SUB.der]), TrustAnchors.from_der([SUB.der, ROOT.der])
    assert forward == backward
    assert hash(forward) == hash(backward)
    assert forward.digest == backward.digest
    assert forward != TrustAnchors.from_der([ROOT.der])
    assert forward != "a set"


def test_sets_are_joined_not_changed():
    left, right = TrustAnchors.from_der([ROOT.der]), TrustAnchors.from_der([SUB.der])
    assert (left | right) == TrustAnchors.from_der([ROOT.der, SUB.der])
    assert (len(left), len(right), len(TrustAnchors())) == (1, 1, 0)
    with pytest.raises(AttributeError):
        left.extra = 1


@pytest.mark.parametrize(
    ("certificate", "problem"),
    [
        (ROOT.ek(), "not a CA certificate"),
        (pki.Ca.root(usage=(pki.CRL_SIGN,)).der, "does not include signing certificates"),
        (
            pki.Ca.root(extra=(pki.extension("1.2.3", pki.utf8("?"), critical=True),)).der,
            "cannot be enforced",
        ),
        (pki.Ca.root(kind="rsa1024").der, "RSA key of 1024 bits"),
        (
            pki.Ca.root(spki=pki.seq(pki.seq(pki.oid("1.3.101.112")), pki.tlv(0x03, bytes(33)))).der,
            "1.3.101.112",
        ),
    ],
    ids=["end certificate", "key usage", "critical", "weak", "unknown key"],
)
def test_what_cannot_be_an_anchor(certificate, problem):
    with pytest.raises(RefusedError, match=problem) as caught:
        TrustAnchors.from_der([ROOT.der, certificate])
    assert caught.value.reason is Reason.EK_CERTIFICATE_UNTRUSTED
    anchors, (unusable,) = TrustAnchors.sift([ROOT.der, certificate])
    assert anchors == TrustAnchors.from_der([ROOT.der])
    assert problem in unusable.problem
    assert unusable.sha256 == hashlib.sha256(certificate).hexdigest()


def test_what_cannot_be_read_is_named_by_its_digest():
    with pytest.raises(MalformedInputError):
        TrustAnchors.from_der([b"junk"])
    _, (unusable,) = TrustAnchors.sift([b"junk"])
    assert (unusable.subject, unusable.sha256) == ("", hashlib.sha256(b"junk").hexdigest())


def test_expired_anchors_stay_in_the_set_and_are_told_ahead():
    soon = pki.Ca.root("Soon", not_after=pki.time(pki.NOW + timedelta(days=20)))
    sooner = pki.Ca.root("Sooner", not_after=pki.time(pki.NOW - timedelta(days=20)))
    anchors = TrustAnchors.from_der([ROOT.der, soon.der, sooner.der])
    expiring = anchors.expiring(pki.NOW + timedelta(days=30))
    assert [anchor.subject_text for anchor in expiring] == ["CN=Sooner", "CN=Soon"]


class TestBundles:
    def test_pem_with_several(self):
        text = (
            b"# of the lab\n"
            + pki.pem("CERTIFICATE", ROOT.der)
            + b"Subject: Sub\n"
            + pki.pem("CERTIFICATE", SUB.der)
        )
        assert split_bundle(text) == (ROOT.der, SUB.der)
        assert TrustAnchors.from_bundle(text) == TrustAnchors.from_der([ROOT.der, SUB.der])
        assert TrustAnchors.from_pem_or_der(text) == TrustAnchors.from_bundle(text)

    def test_der(self):
        assert split_bundle(ROOT.der) == (ROOT.der,)
        assert len(TrustAnchors.from_bundle(ROOT.der)) == 1

    def test_other_pem_is_passed_over(self):
        text = pki.pem("X509 CRL", pki.crl(ROOT)) + pki.pem("CERTIFICATE", ROOT.der)
        assert split_bundle(text) == (ROOT.der,)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"not a certificate",
            pki.pem("PUBLIC KEY", b"\x30\x00"),
            b"-----BEGIN CERTIFICATE-----\nAAAA\n",
            b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        ],
        ids=["empty", "text", "no certificate", "cut off", "not base64"],
    )
    def test_damage(self, data):
        with pytest.raises(EvidenceError) as caught:
            TrustAnchors.from_bundle(data)
        assert caught.value.reason is Reason.EK_CERTIFICATE_MALFORMED

    def test_size_is_bounded(self, monkeypatch):
        monkeypatch.setattr("verifier.crypto.anchors.MAX_BUNDLE", 100)
        with pytest.raises(MalformedInputError):
            split_bundle(pki.pem("CERTIFICATE", ROOT.der))
