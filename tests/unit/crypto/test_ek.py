"""An EK certificate is accepted only as what it is; everything else has its own reason."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from tests import pki
from tests.simulator import RSA_EK, SoftwareTpm
from tests.simulator.keys import private_key
from verifier.crypto import keys
from verifier.crypto.ek import TrustAnchors, ValidatedEk, validate_ek
from verifier.errors import EvidenceError, MalformedInputError, RefusedError
from verifier.reasons import Reason
from verifier.tcg.public import parse_public

GCE_INSTANCE = "1.3.6.1.4.1.11129.2.1.21"
pytestmark = pytest.mark.usefixtures("either_reader")

ROOT = pki.Ca.root()


def validate(certificate, **arguments) -> ValidatedEk:
    defaults = {
        "anchors": TrustAnchors.from_der([ROOT.der]),
        "intermediates": (),
        "ek_public": None,
        "now": pki.NOW,
    }
    return validate_ek(certificate, **(defaults | arguments))


def remarks(valid: ValidatedEk) -> list[str]:
    """Notes, but for the one that names the second reader."""
    return [note for note in valid.profile.notes if "read leniently" not in note]


def refusal(certificate, **arguments) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        validate(certificate, **arguments)
    return caught.value


def test_tells_whose_key_it_is_and_who_said_so():
    certificate = ROOT.ek()
    valid = validate(certificate)
    spki = pki.spki_of(pki.EK_KEY.public_key())
    assert valid.certificate == certificate
    assert valid.chain == (certificate, ROOT.der)
    assert valid.fingerprint == hashlib.sha256(spki).digest()
    assert valid.issuer == "CN=Root"
    assert valid.anchor == hashlib.sha256(ROOT.der).digest()
    assert valid.expires_at == pki.END
    assert remarks(valid) == []


def test_only_validation_makes_a_validated_ek():
    valid = validate(ROOT.ek())
    fields = {item.name: getattr(valid, item.name) for item in dataclasses.fields(valid)}
    with pytest.raises(TypeError):
        ValidatedEk(**(fields | {"seal": None}))
    with pytest.raises(TypeError):
        ValidatedEk(**(fields | {"seal": object()}))


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa2048"])
def test_every_usual_key_is_accepted(kind):
    public = private_key(kind, "pki other ek").public_key()
    assert validate(ROOT.ek(public)).key.key_size == public.key_size


@pytest.mark.parametrize("profile", [None, RSA_EK], ids=["ecc", "rsa"])
def test_certificate_and_tpm_public_name_one_key(profile):
    tpm = SoftwareTpm(3, ek=profile) if profile else SoftwareTpm(3)
    public = parse_public(tpm.ek_public)
    valid = validate(ROOT.ek(tpm.ek.private.public_key()), ek_public=public)
    assert valid.fingerprint == keys.fingerprint(public)


def test_certificate_of_another_tpm_is_a_mismatch():
    public = parse_public(SoftwareTpm(4).ek_public)
    assert refusal(ROOT.ek(), ek_public=public).reason is Reason.EK_CERTIFICATE_KEY_MISMATCH


def test_oaep_key_agrees_with_the_plain_key_of_the_tpm():
    public = private_key("rsa2048", "pki oaep").public_key()
    marked = validate(ROOT.ek(public, spki=pki.oaep_spki(public)))
    assert marked.fingerprint == validate(ROOT.ek(public)).fingerprint
    assert marked.profile.key == "RSA-2048"


@pytest.mark.parametrize("padding", [b"\xff", b"\xff" * 900, b"\x00" * 3], ids=["one", "erased", "zeros"])
def test_nv_padding_is_cut_off_and_noted(padding):
    certificate = ROOT.ek()
    valid = validate(certificate + padding)
    assert valid.certificate == certificate
    assert remarks(valid) == [f"{len(padding)} bytes of padding behind the certificate"]


@pytest.mark.parametrize("rest", [b"\xff\x00", b"\x01", b"\x00\xff", b"\xff" * 40 + b"x"])
def test_other_bytes_behind_the_certificate_are_refused_where_they_begin(rest):
    certificate = ROOT.ek()
    error = refusal(certificate + rest)
    assert isinstance(error, MalformedInputError)
    assert (error.reason, error.offset) == (Reason.EK_CERTIFICATE_MALFORMED, len(certificate))


def test_size_is_bounded():
    huge = ROOT.ek(extra=(pki.extension("1.2.3.4", b"\x04\x00" + bytes(20_000)),))
    assert refusal(huge).reason is Reason.EK_CERTIFICATE_MALFORMED
    assert refusal(ROOT.ek() + b"\xff" * 70_000).reason is Reason.EK_CERTIFICATE_MALFORMED


class TestProfile:
    """What keeps a certificate from being one of an endorsement key."""

    def profile_refusal(self, certificate) -> str:
        error = refusal(certificate)
        assert isinstance(error, RefusedError)
        assert error.reason is Reason.EK_CERTIFICATE_PROFILE
        return error.detail

    def test_ca_certificate(self):
        assert "CA certificate" in self.profile_refusal(ROOT.below("Sub").der)
        assert "CA certificate" in self.profile_refusal(ROOT.ek(ca=True))

    def test_signing_key(self):
        detail = self.profile_refusal(ROOT.ek(usage=(pki.DIGITAL_SIGNATURE,)))
        assert "digital signature" in detail

    def test_other_purpose(self):
        assert "2.23.133.8.3" in self.profile_refusal(ROOT.ek(purposes=(pki.AK_PURPOSE,)))

    def test_any_purpose_is_not_another_purpose(self):
        valid = validate(ROOT.ek(purposes=("2.5.29.37.0",)))
        assert not valid.profile.eku_present

    @pytest.mark.parametrize(
        "extra",
        [
            pki.extension("1.2.3.4", pki.utf8("?"), critical=True),
            pki.extension("2.5.29.30", pki.seq(), critical=True),
            pki.extension("2.5.29.36", pki.seq(pki.tlv(0x80, b"\x00")), critical=True),
        ],
        ids=["unknown", "name constraints", "policy constraints"],
    )
    def test_extension_nobody_enforces(self, extra):
        assert "cannot be enforced" in self.profile_refusal(ROOT.ek(extra=(extra,)))

    def test_constraint_somebody_forgot_to_mark_critical(self):
        extra = pki.extension("2.5.29.30", pki.seq())
        assert "2.5.29.30" in self.profile_refusal(ROOT.ek(extra=(extra,)))

    def test_unknown_extension_is_welcome_when_not_critical(self):
        validate(ROOT.ek(extra=(pki.extension("1.2.3.4", pki.utf8("?")),)))

    def test_critical_alternative_name_without_a_directory_name(self):
        other = pki.extension(pki.SUBJECT_ALT_NAME, pki.seq(pki.tlv(0x82, b"example.org")), critical=True)
        assert "directory name" in self.profile_refusal(ROOT.ek(directory=b"", extra=(other,)))

    def test_key_of_an_unknown_algorithm(self):
        spki = pki.seq(pki.seq(pki.oid("1.3.101.112")), pki.tlv(0x03, bytes(33)))
        assert "1.3.101.112" in self.profile_refusal(ROOT.ek(spki=spki))

    @pytest.mark.parametrize(
        ("changes", "present"),
        [
            ({"purposes": ()}, (False, True)),
            ({"purposes": (), "directory": b"", "subject": pki.tpm_name()}, (False, False)),
            ({"directory": b""}, (True, False)),
            (
                {"directory": b"", "purposes": (), "extra": (pki.extension(GCE_INSTANCE, b""),)},
                (False, False),
            ),
        ],
        ids=["no purpose", "attributes in the subject alone", "no name", "Google"],
    )
    def test_what_is_absent_is_noted_for_policy(self, changes, present):
        valid = validate(ROOT.ek(usage=(), **changes))
        assert (valid.profile.eku_present, valid.profile.san_present) == present
        assert len(remarks(valid)) == present.count(False)

    def test_certificate_of_a_server_below_the_same_ca(self):
        """VMCA certifies hosts and services too; their keys are in files."""
        names = pki.extension(pki.SUBJECT_ALT_NAME, pki.seq(pki.tlv(0x82, b"esx1.example.org")))
        usage = (pki.DIGITAL_SIGNATURE, pki.KEY_ENCIPHERMENT)
        host = ROOT.ek(
            purposes=(), directory=b"", usage=usage, extra=(names,), subject=pki.common_name("esx1")
        )
        assert "nothing in it speaks of a TPM" in self.profile_refusal(host)


class TestIntermediates:
    def test_help_is_taken_from_the_tpm(self):
        sub = ROOT.below("Sub")
        assert validate(sub.ek(), intermediates=(sub.der + b"\xff" * 5,)).chain[1] == sub.der

    def test_damaged_help_does_not_shut_a_tpm_out(self):
        valid = validate(ROOT.ek(), intermediates=(b"\x30\x82", b"junk"))
        assert ["passed over" in note for note in remarks(valid)] == [True, True]

    def test_number_is_bounded(self):
        error = refusal(ROOT.ek(), intermediates=[ROOT.der] * 33)
        assert error.reason is Reason.EK_CERTIFICATE_MALFORMED
