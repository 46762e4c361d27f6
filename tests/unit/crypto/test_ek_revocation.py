"""Revocation lists: what is listed is revoked; what only looks like a list changes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests import pki
from verifier.crypto.ek import TrustAnchors, ValidatedEk, validate_ek
from verifier.crypto.revocation import parse_crl
from verifier.errors import MalformedInputError, RefusedError
from verifier.reasons import Reason

ROOT = pki.Ca.root()
SUB = ROOT.below("Sub", serial=9)
EK_SERIAL = 77
DAY = timedelta(days=1)
ISSUING_POINT, DELTA = "2.5.29.28", "2.5.29.27"


def validate(*crls, certificate=None, ca=ROOT, helpers=()) -> ValidatedEk:
    anchors = TrustAnchors.from_der([ROOT.der] if helpers else [ca.der])
    return validate_ek(
        certificate or ca.ek(), intermediates=helpers, anchors=anchors, crls=crls, ek_public=None, now=pki.NOW
    )


def revoked(*crls, **arguments) -> str:
    with pytest.raises(RefusedError) as caught:
        validate(*crls, **arguments)
    assert caught.value.reason is Reason.EK_CERTIFICATE_REVOKED
    return caught.value.detail


def test_listed_certificate_is_revoked():
    assert "serial 4d was revoked by 'CN=Root'" in revoked(pki.crl(ROOT, (5, EK_SERIAL)))


def test_current_list_without_it_says_nothing():
    assert validate(pki.crl(ROOT, (5,))).profile.notes == ()
    assert validate(pki.crl(ROOT)).profile.notes == ()


def test_intermediate_is_looked_up_too():
    certificate = SUB.ek()
    revoked(pki.crl(ROOT, (9,)), certificate=certificate, helpers=(SUB.der,))
    revoked(pki.crl(SUB, (EK_SERIAL,)), certificate=certificate, helpers=(SUB.der,))
    validate(pki.crl(ROOT, (EK_SERIAL,)), pki.crl(SUB, (9,)), certificate=certificate, helpers=(SUB.der,))


def test_anchor_is_the_operators_to_remove():
    validate(pki.crl(ROOT, (9,)), ca=SUB)


def test_stale_list_still_revokes_and_is_noted():
    stale = {"next_update": pki.NOW - DAY}
    revoked(pki.crl(ROOT, (EK_SERIAL,), **stale))
    (note,) = validate(pki.crl(ROOT, (), **stale)).profile.notes
    assert "stale since 2026-05-31" in note


def test_list_from_the_future_is_noted():
    (note,) = validate(pki.crl(ROOT, (), this_update=pki.NOW + DAY)).profile.notes
    assert "in the future" in note


def test_list_without_a_next_date_is_never_stale():
    assert validate(pki.crl(ROOT, (), next_update=None)).profile.notes == ()


def test_false_signature_revokes_nothing():
    stranger = pki.Ca.root("Root", seed="stranger")
    validate(pki.crl(stranger, (EK_SERIAL,)))
    validate(pki.crl(ROOT, (EK_SERIAL,), key=stranger.key))


def test_signature_algorithm_nobody_judges_revokes_nothing():
    known, unknown = pki.ALGORITHMS["ecdsa-sha256"].identifier, pki.seq(pki.oid("1.2.840.10045.4.3.9"))
    assert len(known) == len(unknown)
    validate(pki.crl(ROOT, (EK_SERIAL,)).replace(known, unknown))


def test_list_of_another_issuer_revokes_nothing():
    other = pki.Ca.root("Other", seed="Root")
    validate(pki.crl(other, (EK_SERIAL,)))


def test_issuer_that_may_not_sign_lists():
    quiet = pki.Ca.root("Quiet", usage=(pki.CERT_SIGN,))
    validate(pki.crl(quiet, (EK_SERIAL,)), ca=quiet)


def test_issuer_without_key_usage_may():
    old = pki.Ca.root("Old", usage=())
    revoked(pki.crl(old, (EK_SERIAL,)), ca=old)


def test_partial_list_revokes_what_it_lists():
    only_users = pki.extension(ISSUING_POINT, pki.seq(pki.tlv(0x81, b"\xff")), critical=True)
    revoked(pki.crl(ROOT, (EK_SERIAL,), extensions=(only_users,)))


@pytest.mark.parametrize(
    "extension",
    [
        pki.extension(ISSUING_POINT, pki.seq(pki.tlv(0x84, b"\xff")), critical=True),
        pki.extension(DELTA, pki.integer(4), critical=True),
        pki.extension("1.2.3.4", pki.utf8("?"), critical=True),
    ],
    ids=["indirect", "delta", "unknown"],
)
def test_list_nobody_here_understands_is_noted_and_not_used(extension):
    (note,) = validate(pki.crl(ROOT, (EK_SERIAL,), extensions=(extension,))).profile.notes
    assert "was not used" in note


def test_extension_that_is_not_critical_does_not_matter():
    number = pki.extension("2.5.29.20", pki.integer(3))
    revoked(pki.crl(ROOT, (EK_SERIAL,), extensions=(number,)))


@pytest.mark.parametrize(
    "data", [b"", b"\x30\x03\x02\x01\x01", ROOT.der, pki.crl(ROOT)[:-1], pki.crl(ROOT) + b"\x00"]
)
def test_what_is_no_list_is_the_operators_error(data):
    with pytest.raises(MalformedInputError) as caught:
        parse_crl(data)
    assert caught.value.structure == "CertificateList"


def test_version_that_does_not_exist():
    whole = pki.crl(ROOT)
    with pytest.raises(MalformedInputError, match="version"):
        parse_crl(whole.replace(pki.integer(1), pki.integer(0), 1))


def test_list_with_an_issuer_nobody_can_read():
    broken = pki.Ca.root("Broken")
    name = pki.seq(pki.tlv(0x31, pki.seq(pki.oid("2.5.4.3"), pki.tlv(0x0C, b"\xff\xfe"))))
    with pytest.raises(MalformedInputError) as caught:
        parse_crl(pki.crl(pki.Ca("", broken.key, name, b"")))
    assert (caught.value.structure, caught.value.reason) == ("CertificateList", Reason.MALFORMED_STRUCTURE)


def test_size_is_bounded(monkeypatch):
    monkeypatch.setattr("verifier.crypto.revocation.MAX_CRL", 100)
    with pytest.raises(MalformedInputError):
        parse_crl(pki.crl(ROOT, tuple(range(1, 200))))


class TestStatus:
    """What a policy may demand: that every certificate below the anchor was looked up in a current list."""

    leaf = SUB.ek()

    def status(self, *crls) -> str:
        return validate(*crls, certificate=self.leaf, helpers=(SUB.der,)).revocation.value

    def test_every_certificate_of_the_path_has_to_be_covered(self):
        root, sub = pki.crl(ROOT), pki.crl(SUB)
        assert self.status(root, sub) == "current"
        assert self.status(root) == self.status(sub) == self.status() == "unchecked"
        assert validate().revocation.value == "unchecked"
        assert validate(root).revocation.value == "current"

    def test_one_overdue_list_makes_it_overdue_unless_a_newer_one_is_there(self):
        old, sub = pki.crl(ROOT, next_update=pki.NOW - DAY), pki.crl(SUB)
        assert self.status(old, sub) == "overdue"
        assert self.status(old, pki.crl(ROOT), sub) == "current"
        notes = validate(old, pki.crl(ROOT), sub, certificate=self.leaf, helpers=(SUB.der,)).profile.notes
        assert notes == ()
        revoked(
            pki.crl(ROOT, (9,), next_update=pki.NOW - DAY),
            pki.crl(ROOT),
            certificate=self.leaf,
            helpers=(SUB.der,),
        )

    @pytest.mark.parametrize(
        "changes",
        [
            {"this_update": pki.NOW + DAY},
            {"extensions": (pki.extension(ISSUING_POINT, pki.seq(pki.tlv(0x81, b"\xff")), critical=True),)},
            {"extensions": (pki.extension(DELTA, pki.integer(4), critical=True),)},
            {"key": pki.Ca.root("Root", seed="stranger").key},
        ],
        ids=["from the future", "partial", "delta", "forged"],
    )
    def test_what_does_not_cover_the_certificate_checks_nothing(self, changes):
        assert self.status(pki.crl(ROOT), pki.crl(SUB, **changes)) == "unchecked"
