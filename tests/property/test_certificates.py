"""Hostile certificates: they are read, or refused with the one typed error, soon, and never believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import pki
from tests.simulator.keys import private_key
from verifier.crypto.anchors import TrustAnchors, split_bundle
from verifier.crypto.der import open_envelope, trim_padding
from verifier.crypto.device_keys import KeyKind, validate_key_certificate
from verifier.crypto.ek import validate_ek
from verifier.crypto.lenient import read_lenient
from verifier.crypto.names import attributes, canonical_name, display_name
from verifier.crypto.revocation import parse_crl
from verifier.crypto.strict import NotStrictError, read_strict
from verifier.errors import EvidenceError, RefusedError

ROOT = pki.Ca.root()
SUB = ROOT.below("Sub")
RSA_KEY = private_key("rsa2048", "pki property").public_key()
ANCHORS = TrustAnchors.from_der([ROOT.der])
BASES = (
    ROOT.ek(),
    ROOT.ek(RSA_KEY),
    ROOT.ek(RSA_KEY, spki=pki.oaep_spki(RSA_KEY)),
    ROOT.ek(not_before=pki.tlv(0x17, b"2401010000Z")),
    ROOT.ek(
        directory=pki.seq(pki.rdn((pki.MODEL, pki.utf8("b")), (pki.MANUFACTURER, pki.utf8("id:564D5700"))))
    ),
    SUB.ek(subject=pki.tpm_name()),
)
SOON = settings(deadline=timedelta(seconds=2), suppress_health_check=[HealthCheck.too_slow])


@st.composite
def mutated(draw, bases=BASES):
    """A certificate with a few of its bytes changed, cut out, doubled or filled in."""
    data = bytearray(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        span = draw(st.integers(1, 12))
        match draw(st.sampled_from(("set", "cut", "double", "fill"))):
            case "set":
                data[at] = draw(st.integers(0, 255))
            case "cut" if len(data) > span:
                del data[at : at + span]
            case "double":
                data[at:at] = data[at : at + span]
            case _:
                data[at:at] = draw(st.binary(min_size=1, max_size=span))
    return bytes(data)


def judge(certificate: bytes, helpers: tuple[bytes, ...] = (SUB.der,)):
    """The certificate's signed bytes when it was accepted, None when it was refused."""
    try:
        valid = validate_ek(certificate, intermediates=helpers, anchors=ANCHORS, ek_public=None, now=pki.NOW)
    except EvidenceError as error:
        return None if str(error) else b"refused without a word"
    return open_envelope(valid.certificate).signed


KNOWN = {open_envelope(base).signed for base in BASES}


@SOON
@given(st.binary(max_size=400))
def test_any_bytes(data):
    assert judge(data) is None


@settings(SOON, max_examples=600)
@given(mutated())
def test_a_changed_certificate_is_never_believed(data):
    assert judge(data) in KNOWN | {None}


@settings(SOON, max_examples=200)
@given(mutated(bases=(SUB.der, ROOT.der)))
def test_a_changed_authority_is_never_believed(data):
    path = SUB.ek()
    assert judge(path, (data,)) in {None, open_envelope(path).signed}
    found, unusable = TrustAnchors.sift([data])
    assert len(found) + len(unusable) == 1


@settings(SOON, max_examples=400)
@given(mutated())
def test_readers_agree_wherever_both_read(data):
    try:
        envelope = open_envelope(trim_padding(data)[0])
        strict = read_strict(envelope)
        lenient = read_lenient(envelope, "test")
    except (EvidenceError, NotStrictError):
        return
    for name in ("not_before", "not_after", "extensions", "serial", "algorithm", "spki"):
        assert getattr(strict, name) == getattr(lenient, name), name


extensions = st.builds(
    lambda kind, critical, value: pki.extension(kind, value, critical=critical),
    st.sampled_from(
        (
            pki.BASIC_CONSTRAINTS,
            pki.KEY_USAGE,
            pki.EXTENDED_KEY_USAGE,
            pki.SUBJECT_KEY_ID,
            pki.AUTHORITY_KEY_ID,
            pki.SUBJECT_ALT_NAME,
            "2.5.29.32",
            "2.5.29.30",
            "1.3.6.1.4.1.11129.2.1.21",
            "1.2.3.4",
        )
    ),
    st.booleans(),
    st.one_of(st.binary(max_size=40), st.builds(pki.seq, st.binary(max_size=40)), st.just(pki.seq())),
)
names = st.one_of(
    st.builds(pki.seq, st.binary(max_size=60)),
    st.lists(
        st.builds(
            lambda oid, tag, value: pki.rdn((oid, pki.tlv(tag, value))),
            st.sampled_from(("2.5.4.3", pki.MANUFACTURER, pki.MODEL)),
            st.sampled_from((0x0C, 0x13, 0x14, 0x16, 0x1C, 0x1E, 0x03)),
            st.binary(max_size=20),
        ),
        max_size=4,
    ).map(lambda rdns: pki.seq(*rdns)),
)
keys = st.one_of(
    st.just(pki.spki_of(pki.EK_KEY.public_key())),
    st.builds(
        lambda raw: pki.seq(pki.seq(pki.oid("1.2.840.113549.1.1.7")), pki.tlv(3, b"\0", raw)),
        st.binary(max_size=60),
    ),
    st.builds(
        lambda raw: pki.seq(pki.seq(pki.oid("1.2.840.113549.1.1.1"), pki.NULL), pki.tlv(3, raw)),
        st.binary(max_size=60),
    ),
    st.builds(pki.seq, st.binary(max_size=60)),
)


@settings(SOON, max_examples=400)
@given(
    subject=names, spki=keys, extra=st.lists(extensions, max_size=4), serial=st.integers(-(1 << 80), 1 << 80)
)
def test_a_signature_does_not_make_nonsense_readable(subject, spki, extra, serial):
    """What a trusted CA could be made to sign: the signature holds, the content is anything."""
    body = replace(
        pki.ek_body(pki.EK_KEY.public_key()),
        issuer=ROOT.subject,
        subject=subject,
        spki=spki,
        extensions=tuple(extra),
        serial=serial,
    )
    certificate = body.signed_by(ROOT.key)
    judge(certificate)
    for kind in KeyKind:
        try:
            validate_key_certificate(certificate, kind=kind, anchors=ANCHORS, public=None, now=pki.NOW)
        except EvidenceError:
            continue


@SOON
@given(names)
def test_names(name):
    for read in (canonical_name, display_name, attributes):
        try:
            read(name)
        except EvidenceError:
            continue


@settings(SOON, max_examples=200)
@given(mutated(bases=(pki.crl(ROOT, (1, 2, 3)),)))
def test_revocation_lists(data):
    try:
        crl = parse_crl(data)
    except EvidenceError:
        return
    try:
        validate_ek(ROOT.ek(), anchors=ANCHORS, crls=(data,), ek_public=None, now=pki.NOW)
    except RefusedError as error:
        raise AssertionError("a changed list revoked a certificate") from error
    assert crl.serials is not None


@SOON
@given(st.one_of(st.binary(max_size=300), mutated(bases=(pki.pem("CERTIFICATE", ROOT.der) * 2,))))
def test_bundles(data):
    try:
        TrustAnchors.from_der(split_bundle(data))
    except EvidenceError:
        return
