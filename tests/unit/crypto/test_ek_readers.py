"""Two readers, one certificate: the same where both read it, and the second as strict where it counts."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests import pki
from tests.conftest import shared_path
from tests.simulator.keys import private_key
from verifier.crypto import cert_reader
from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.certificate import Certificate, KeyUsage
from verifier.crypto.der import open_envelope
from verifier.crypto.ek import TrustAnchors, validate_ek
from verifier.crypto.lenient import read_lenient
from verifier.crypto.strict import NotStrictError, read_strict
from verifier.errors import EvidenceError, MalformedInputError
from verifier.reasons import Reason

ROOT = pki.Ca.root()
RSA = private_key("rsa2048", "pki readers").public_key()
OFFSET_TIME = pki.tlv(0x17, b"240101010000+0100")


def lenient(der: bytes) -> Certificate:
    return read_lenient(open_envelope(der), "test")


def fields(certificate: Certificate) -> dict[str, object]:
    names = (item.name for item in dataclasses.fields(certificate))
    return {name: getattr(certificate, name) for name in names if name != "lenient_because"}


GOOD = {
    "root": ROOT.der,
    "path length": pki.Ca.root(path_length=3).der,
    "ecc": ROOT.ek(),
    "rsa": ROOT.ek(RSA),
    "oaep": ROOT.ek(RSA, spki=pki.oaep_spki(RSA)),
    "compressed point": ROOT.ek(spki=pki.compressed_spki(pki.EK_KEY.public_key())),
    "bare": ROOT.ek(usage=(), purposes=(), directory=b""),
    "no extensions": replace(pki.ek_body(RSA), issuer=ROOT.subject, extensions=()).signed_by(ROOT.key),
    "all usages": ROOT.ek(usage=tuple(range(9))),
    "late": ROOT.ek(not_after=pki.tlv(0x18, b"99991231235959Z")),
    "many purposes": ROOT.ek(purposes=(pki.EK_PURPOSE, "1.2.840.113549.1.1.1", "2.999.3")),
    "pss": pki.Ca.root("RSA", kind="rsa2048").ek(algorithm=pki.ALGORITHMS["rsa-pss-sha384"]),
    "other name": ROOT.ek(
        directory=b"",
        extra=(
            pki.extension(
                pki.SUBJECT_ALT_NAME,
                pki.seq(
                    pki.tlv(0xA0, pki.oid("1.3.6.1.5.5.7.8.4"), pki.tlv(0xA0, pki.seq(pki.oid("1.2.3"))))
                ),
            ),
        ),
    ),
    "multi-valued": ROOT.ek(
        directory=pki.seq(pki.rdn(("2.5.4.3", pki.utf8("a")), ("2.5.4.10", pki.utf8("b"))))
    ),
    "unknown": ROOT.ek(extra=(pki.extension("1.2.3.4", pki.utf8("?"), critical=True),)),
}


@pytest.mark.parametrize("der", GOOD.values(), ids=GOOD)
def test_both_readers_agree(der):
    assert fields(read_strict(open_envelope(der))) == fields(lenient(der))


def test_both_readers_agree_on_every_real_certificate_both_read():
    agreed = 0
    for path in sorted(shared_path("corpus/tpm-ca-store").glob("*.der")):
        envelope = open_envelope(path.read_bytes())
        try:
            first = read_strict(envelope)
        except NotStrictError:
            continue
        assert fields(first) == fields(read_lenient(envelope, "test")), path.name
        agreed += 1
    assert agreed >= 350


def test_only_what_the_first_reader_refuses_is_read_leniently():
    assert parse_certificate(ROOT.ek()).lenient_because is None
    assert parse_certificate(ROOT.ek(not_before=OFFSET_TIME)).lenient_because


def test_authorities_are_remembered_only_by_their_bytes():
    cert_reader.parse_authority.cache_clear()
    assert cert_reader.parse_authority(ROOT.der) is cert_reader.parse_authority(bytes(bytearray(ROOT.der)))
    assert cert_reader.parse_authority(ROOT.ek()) != cert_reader.parse_authority(ROOT.der)


REAL_DEPARTURES = {
    "set out of order": {
        "directory": pki.seq(
            pki.tlv(
                0x31,
                pki.seq(pki.oid(pki.VERSION), pki.utf8("id:01")),
                pki.seq(pki.oid(pki.MANUFACTURER), pki.utf8("id:4E544300")),
                pki.seq(pki.oid(pki.MODEL), pki.utf8("NPCT75x")),
            )
        )
    },
    "time without seconds": {"not_before": pki.tlv(0x17, b"2401010000Z")},
    "time with an offset": {"not_before": OFFSET_TIME},
    "generalized time before 2050": {"not_before": pki.tlv(0x18, b"20240101000000Z")},
    "generalized time with a fraction": {"not_before": pki.tlv(0x18, b"20240101000000.00Z")},
    "null behind ECDSA": {"algorithm": pki.ALGORITHMS["ecdsa-sha256-null"]},
    "critical written FALSE": {
        "extra": (pki.extension("1.2.3", pki.utf8("?"), flag=pki.tlv(0x01, b"\x00")),)
    },
    "negative serial": {"serial": -5},
    "long serial": {"serial": 1 << 200},
    "blank in a printable name": {"subject": pki.seq(pki.rdn(("2.5.4.3", pki.printable("a_b@c"))))},
}


@pytest.mark.parametrize("changes", REAL_DEPARTURES.values(), ids=REAL_DEPARTURES)
def test_departures_of_real_certificates_are_accepted(changes):
    valid = validate_ek(
        ROOT.ek(**changes), anchors=TrustAnchors.from_der([ROOT.der]), ek_public=None, now=pki.NOW
    )
    certificate = parse_certificate(valid.certificate)
    assert certificate.not_before == pki.START
    if certificate.lenient_because:
        assert any(certificate.lenient_because in note for note in valid.profile.notes)


class TestSecondReader:
    """Lenient in form, not in what protects."""

    def malformed(self, der: bytes) -> MalformedInputError:
        with pytest.raises(MalformedInputError) as caught:
            lenient(der)
        assert caught.value.reason is Reason.EK_CERTIFICATE_MALFORMED
        return caught.value

    def test_extension_that_occurs_twice(self):
        der = ROOT.ek(extra=(pki.basic_constraints(ca=True),))
        error = self.malformed(der)
        assert "a second time" in error.detail
        assert der[error.offset] == 0x30
        assert parse_error(der).reason is Reason.EK_CERTIFICATE_MALFORMED

    @pytest.mark.parametrize("truth", [b"\xff", b"\x01", b"\x80"])
    def test_every_truth_is_critical(self, truth):
        extra = pki.extension("1.2.3", pki.utf8("?"), flag=pki.tlv(0x01, truth))
        assert lenient(ROOT.ek(extra=(extra,))).unenforced() == ("1.2.3",)

    @pytest.mark.parametrize("flag", [b"", b"\xff\xff"])
    def test_truth_of_another_size(self, flag):
        self.malformed(ROOT.ek(extra=(pki.extension("1.2.3", pki.utf8("?"), flag=pki.tlv(0x01, flag)),)))

    def test_number_of_extensions_is_bounded(self):
        self.malformed(ROOT.ek(extra=tuple(pki.extension(f"1.2.3.{n}", pki.utf8("?")) for n in range(80))))

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (pki.BASIC_CONSTRAINTS, pki.utf8("?")),
            (pki.BASIC_CONSTRAINTS, pki.seq(pki.tlv(0x01, b"\xff"), pki.integer(-1))),
            (pki.BASIC_CONSTRAINTS, pki.seq() + b"\x00"),
            (pki.KEY_USAGE, pki.seq()),
            (pki.EXTENDED_KEY_USAGE, pki.seq(pki.utf8("?"))),
            (pki.EXTENDED_KEY_USAGE, pki.seq(pki.oid(pki.EK_PURPOSE)) + b"\x05\x00"),
            (pki.SUBJECT_KEY_ID, pki.seq()),
            (pki.AUTHORITY_KEY_ID, pki.tlv(0x04, b"x")),
            (pki.SUBJECT_ALT_NAME, pki.seq(pki.tlv(0xA0, pki.utf8("?")))),
            (pki.SUBJECT_ALT_NAME, pki.seq(pki.tlv(0xA4, b"\x30\x05"))),
        ],
    )
    def test_value_that_is_not_what_its_identifier_says(self, kind, value):
        body = replace(pki.ek_body(RSA), issuer=ROOT.subject, extensions=(pki.extension(kind, value),))
        der = body.signed_by(ROOT.key)
        self.malformed(der)
        assert parse_error(der).reason is Reason.EK_CERTIFICATE_MALFORMED

    @pytest.mark.parametrize(
        "value",
        [
            pki.utf8("240101000000Z"),
            pki.tlv(0x17, b"2413010000Z"),
            pki.tlv(0x18, b"00000101000000Z"),
            pki.tlv(0x17),
        ],
    )
    def test_what_is_no_time(self, value):
        self.malformed(ROOT.ek(not_before=value))

    def test_times_are_utc(self):
        certificate = lenient(ROOT.ek(not_before=OFFSET_TIME))
        assert certificate.not_before == datetime(2024, 1, 1, tzinfo=UTC)

    def test_key_usage_with_trailing_zeros(self):
        usage = pki.extension(pki.KEY_USAGE, pki.tlv(0x03, b"\x00\x20\x00\x00"), critical=True)
        assert lenient(ROOT.ek(usage=(), extra=(usage,))).extensions.key_usage is KeyUsage.KEY_ENCIPHERMENT


def parse_error(der: bytes) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        parse_certificate(der)
    return caught.value


def _cut(der: bytes, size: int) -> bytes:
    return der[:size]


_BODY = replace(pki.ek_body(pki.EK_KEY.public_key()), issuer=ROOT.subject)
MALFORMED = {
    "empty": b"",
    "no sequence": b"\x04\x02ab",
    "cut off": _cut(ROOT.ek(), 200),
    "indefinite length": b"\x30\x80" + ROOT.ek()[4:] + b"\x00\x00",
    "long length for a short value": b"\x30\x81\x05\x02\x03\x01\x02\x03",
    "length of length": b"\x30\x89" + bytes(20),
    "high tag": pki.seq(b"\x1f\x81\x01\x00"),
    "version 1": replace(_BODY, version=b"").signed_by(ROOT.key),
    "version 2": replace(_BODY, version=pki.tlv(0xA0, pki.integer(1))).signed_by(ROOT.key),
    "two signature algorithms": replace(
        _BODY, inner_algorithm=pki.ALGORITHMS["ecdsa-sha384"].identifier
    ).signed_by(ROOT.key),
    "trailing bytes inside": pki.seq(ROOT.ek()[4:], b"\x05\x00"),
    "part of a byte signed": ROOT.ek()
    .replace(b"\x00\x30\x45\x02", b"\x01\x30\x45\x02")
    .replace(b"\x00\x30\x44\x02", b"\x01\x30\x44\x02")
    .replace(b"\x00\x30\x46\x02", b"\x01\x30\x46\x02"),
    "point off the curve": replace(_BODY, spki=pki.spki_of(pki.EK_KEY.public_key())[:-1] + b"\x00").signed_by(
        ROOT.key
    ),
    "curve by its parameters": replace(
        _BODY,
        spki=pki.seq(
            pki.seq(pki.oid("1.2.840.10045.2.1"), pki.seq(pki.integer(1))),
            pki.tlv(0x03, b"\x00\x04", bytes(64)),
        ),
    ).signed_by(ROOT.key),
    "RSA without a key": replace(
        _BODY, spki=pki.seq(pki.seq(pki.oid("1.2.840.113549.1.1.1"), pki.NULL), pki.tlv(0x03, b"\x00"))
    ).signed_by(ROOT.key),
    "OAEP with part of a byte": replace(
        _BODY, spki=pki.seq(pki.seq(pki.oid("1.2.840.113549.1.1.7")), pki.tlv(0x03, b"\x01\x30\x00"))
    ).signed_by(ROOT.key),
    "OAEP of absurd size": replace(
        _BODY,
        spki=pki.seq(
            pki.seq(pki.oid("1.2.840.113549.1.1.7")),
            pki.tlv(0x03, b"\x00", pki.seq(pki.integer(1 << 9000 | 1), pki.integer(3))),
        ),
    ).signed_by(ROOT.key),
    "RSA of absurd size": replace(
        _BODY, spki=pki.spki_of(pki.rsa.RSAPublicNumbers(65537, 1 << 8300 | 1).public_key())
    ).signed_by(ROOT.key),
    "key of another kind": replace(
        _BODY,
        spki=pki.seq(
            pki.seq(pki.oid("1.2.840.10045.2.1"), pki.oid("1.2.840.10045.3.1.7")),
            pki.tlv(0x03, b"\0", pki.seq(pki.integer(1 << 2047), pki.integer(65537))),
        ),
    ).signed_by(ROOT.key),
    "identifier of several encodings": replace(
        _BODY, spki=pki.seq(pki.seq(pki.tlv(0x06, b"\x2a\x80\x03")), pki.tlv(0x03, b"\x00"))
    ).signed_by(ROOT.key),
    "no object identifier": replace(
        _BODY, spki=pki.seq(pki.seq(pki.tlv(0x06, b"\x80")), pki.tlv(0x03, b"\x00"))
    ).signed_by(ROOT.key),
}


@pytest.mark.parametrize("der", MALFORMED.values(), ids=MALFORMED)
def test_malformed_certificates_are_refused_with_their_place(der):
    error = parse_error(der)
    assert isinstance(error, MalformedInputError)
    assert error.reason is Reason.EK_CERTIFICATE_MALFORMED
    assert error.offset is not None
    assert 0 <= error.offset <= len(der)


def test_every_writing_of_a_key_has_one_fingerprint():
    plain = parse_certificate(GOOD["ecc"])
    assert parse_certificate(GOOD["compressed point"]).key_fingerprint == plain.key_fingerprint
    assert parse_certificate(GOOD["oaep"]).key_fingerprint == parse_certificate(GOOD["rsa"]).key_fingerprint


def test_canonical_keys_are_what_openssl_writes():
    for path in sorted(shared_path("corpus/tpm-ca-store").glob("*.der")):
        certificate = parse_certificate(path.read_bytes())
        assert certificate.key is None or certificate.spki == pki.spki_of(certificate.key), path.name


def test_unique_identifiers_are_passed_over():
    """Extinct fields of X.509 version 2, which stand before the extensions."""
    spki = pki.spki_of(pki.EK_KEY.public_key())
    der = replace(_BODY, spki=spki + pki.tlv(0x81, b"\x00\x01")).signed_by(ROOT.key)
    assert open_envelope(der).spki.encoded == spki


@pytest.mark.parametrize(
    "identifier",
    [
        pki.seq(pki.oid("1.2.840.10045.4.3.2"), pki.seq()),
        pki.seq(pki.oid("1.2.840.113549.1.1.10")),
        pki.seq(pki.oid("1.2.840.113549.1.1.10"), pki.seq()),
        pki.seq(pki.oid("1.2.840.113549.1.1.10"), pki.utf8("?")),
        pki.seq(pki.oid("1.2.840.113549.1.1.10"), pki.seq(pki.tlv(0xA2, pki.integer(500)))),
        pki.seq(pki.oid("1.3.101.112")),
    ],
    ids=["parameters", "pss bare", "pss defaults", "pss junk", "pss salt", "ed25519"],
)
def test_signature_algorithms_nobody_judges_are_named_and_never_pass(identifier):
    der = ROOT.ek(algorithm=pki.Algorithm(identifier, pki.hashes.SHA256()))
    with pytest.raises(EvidenceError, match="not accepted") as caught:
        validate_ek(der, anchors=TrustAnchors.from_der([ROOT.der]), ek_public=None, now=pki.NOW)
    assert caught.value.reason is Reason.EK_CERTIFICATE_UNTRUSTED
