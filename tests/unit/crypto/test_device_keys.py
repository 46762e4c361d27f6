"""Certificates of signing keys in a TPM: clouds' AKs, device makers' IAK and IDevID."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from tests import pki
from tests.conftest import shared_path
from tests.simulator import SoftwareTpm
from verifier.crypto import keys
from verifier.crypto.anchors import TrustAnchors, split_bundle
from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.device_keys import EndorsedKey, KeyKind, validate_key_certificate
from verifier.crypto.device_profile import GceInstance
from verifier.errors import EvidenceError, MalformedInputError
from verifier.reasons import Reason
from verifier.tcg.public import parse_public

pytestmark = pytest.mark.usefixtures("either_reader")

ROOT = pki.Ca.root()
RESIDENCY, FIXED, RESTRICTED = "2.23.133.11.1.1", "2.23.133.11.1.2", "2.23.133.11.1.3"
TPM_2_0, EK_DIGEST = "2.23.133.1.2", "2.23.133.12.1"
HARDWARE_MODULE, PERMANENT = "1.3.6.1.5.5.7.8.4", "1.3.6.1.5.5.7.8.3"
GCE, POLICIES = "1.3.6.1.4.1.11129.2.1.21", "2.5.29.32"
IN_2026 = datetime(2026, 11, 1, tzinfo=UTC)


def policies(*oids: str) -> bytes:
    return pki.extension(POLICIES, pki.seq(*(pki.seq(pki.oid(oid)) for oid in oids)))


def device_names(*, critical=False, hardware=TPM_2_0) -> bytes:
    module = pki.seq(pki.oid(hardware), pki.tlv(0x04, b"SN 1"))
    permanent = pki.seq(pki.utf8("ab" * 32), pki.oid(EK_DIGEST))
    names = (
        pki.tlv(0xA0, pki.oid(HARDWARE_MODULE), pki.tlv(0xA0, module)),
        pki.tlv(0xA0, pki.oid(PERMANENT), pki.tlv(0xA0, permanent)),
    )
    return pki.extension(pki.SUBJECT_ALT_NAME, pki.seq(*names), critical=critical)


def gce(*, properties: bytes | None = None) -> bytes:
    instance = (pki.utf8("z"), pki.integer(7), pki.utf8("p"), pki.integer(1 << 63), pki.utf8("vm"))
    return pki.extension(GCE, pki.seq(*instance, *((properties,) if properties is not None else ())))


def gce_properties(*properties: bytes) -> bytes:
    return pki.tlv(0xA0, pki.seq(*properties))


def production(value: bool) -> bytes:
    return pki.tlv(0xA1, pki.tlv(0x01, b"\xff" if value else b"\x00"))


def key_certificate(*extra: bytes, key=None, usage=(pki.DIGITAL_SIGNATURE,), purposes=(), **changes) -> bytes:
    return ROOT.ek(key, usage=usage, purposes=purposes, directory=b"", extra=extra, **changes)


def validate(certificate, kind, *, anchors=(ROOT.der,), now=pki.NOW, **arguments) -> EndorsedKey:
    trusted = TrustAnchors.from_der(anchors)
    defaults = {"public": None} | arguments
    return validate_key_certificate(certificate, kind=kind, anchors=trusted, now=now, **defaults)


def refusal(certificate, kind, **arguments) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        validate(certificate, kind, **arguments)
    return caught.value


AK = key_certificate(purposes=(pki.AK_PURPOSE,))
IAK = key_certificate(policies(RESIDENCY, RESTRICTED), device_names())
IDEVID = key_certificate(policies(RESIDENCY, FIXED), device_names())


def test_one_key_one_fingerprint():
    tpm = SoftwareTpm("ak certificate")
    public = parse_public(tpm.ak.public)
    certificate = key_certificate(key=tpm.ak.private.public_key(), purposes=(pki.AK_PURPOSE,))
    valid = validate(certificate, KeyKind.AK, public=public)
    assert valid.fingerprint == keys.fingerprint(public)
    assert valid.chain == (certificate, ROOT.der)
    assert (valid.kind, valid.issuer, valid.expires_at) == (KeyKind.AK, "CN=Root", pki.END)
    other = parse_public(SoftwareTpm("other").ak.public)
    assert refusal(certificate, KeyKind.AK, public=other).reason is Reason.EK_CERTIFICATE_KEY_MISMATCH


def test_only_validation_makes_an_endorsed_key():
    valid = validate(AK, KeyKind.AK)
    fields = {item.name: getattr(valid, item.name) for item in dataclasses.fields(valid)}
    with pytest.raises(TypeError):
        EndorsedKey(**(fields | {"seal": None}))


@pytest.mark.parametrize(
    ("certificate", "kinds"),
    [
        (AK, {KeyKind.AK, KeyKind.IAK}),
        (IAK, {KeyKind.AK, KeyKind.IAK}),
        (IDEVID, {KeyKind.IDEVID}),
        (key_certificate(policies(RESTRICTED), purposes=("2.5.29.37.0",)), {KeyKind.AK, KeyKind.IAK}),
        (key_certificate(purposes=(RESIDENCY, RESTRICTED)), {KeyKind.AK, KeyKind.IAK}),
        (key_certificate(purposes=(FIXED,)), {KeyKind.IDEVID}),
        (key_certificate(device_names(), purposes=("1.3.6.1.5.5.7.3.2",)), {KeyKind.IDEVID}),
        (key_certificate(gce()), {KeyKind.AK}),
        (key_certificate(gce(properties=gce_properties(production(True)))), {KeyKind.AK}),
        (key_certificate(gce(), purposes=(pki.EK_PURPOSE,)), {KeyKind.AK}),
        # nothing says what it is: a server's certificate from the same CA
        (key_certificate(), set()),
        (key_certificate(purposes=("1.3.6.1.5.5.7.3.1",)), set()),
        (key_certificate(purposes=("2.5.29.37.0",)), set()),
        (key_certificate(device_names(hardware="1.2.3"), purposes=("1.3.6.1.5.5.7.3.2",)), set()),
        # Google's own test machines
        (key_certificate(gce(properties=gce_properties(production(False)))), set()),
        # an endorsement key, by purpose or by usage
        (key_certificate(policies(RESTRICTED), purposes=(pki.EK_PURPOSE,), usage=()), set()),
        (key_certificate(policies(RESTRICTED), usage=(pki.KEY_ENCIPHERMENT,)), set()),
        (ROOT.ek(), set()),
        (ROOT.below("Sub").der, set()),
        (key_certificate(pki.extension("1.2.3", b"", critical=True), purposes=(pki.AK_PURPOSE,)), set()),
    ],
)
def test_what_a_certificate_may_be_used_as(certificate, kinds):
    for kind in KeyKind:
        if kind in kinds:
            assert validate(certificate, kind).kind is kind
        else:
            error = refusal(certificate, kind)
            assert error.reason is Reason.EK_CERTIFICATE_PROFILE
            assert kind.name in error.detail


@pytest.mark.parametrize(
    ("names", "accepted"),
    [
        (device_names(critical=True), True),
        (pki.directory_san(pki.tpm_name(), critical=True), True),
        (pki.extension(pki.SUBJECT_ALT_NAME, pki.seq(pki.tlv(0x82, b"example.org")), critical=True), False),
    ],
)
def test_critical_alternative_names(names, accepted):
    certificate = key_certificate(names, purposes=(pki.AK_PURPOSE,))
    if accepted:
        validate(certificate, KeyKind.AK)
    else:
        assert "critical subject alternative name" in refusal(certificate, KeyKind.AK).detail


class TestAuthorities:
    def chain(self, purpose, kind, leaf=AK):
        sub = ROOT.below("Sub", extra=(pki.extended_key_usage(purpose),))
        extensions = {AK: {"purposes": (pki.AK_PURPOSE,)}, IDEVID: {"purposes": (FIXED,)}}[leaf]
        certificate = sub.ek(usage=(pki.DIGITAL_SIGNATURE,), directory=b"", **extensions)
        return validate(certificate, kind, intermediates=(sub.der,))

    def test_limited_to_ek_certificates_may_issue_aks_as_googles_does(self):
        assert len(self.chain(pki.EK_PURPOSE, KeyKind.AK).chain) == 3

    def test_limited_to_ek_certificates_issues_no_iak(self):
        with pytest.raises(EvidenceError, match="limited to the purposes"):
            self.chain(pki.EK_PURPOSE, KeyKind.IAK)

    def test_limited_to_servers_issues_no_ak(self):
        with pytest.raises(EvidenceError, match="limited to the purposes"):
            self.chain("1.3.6.1.5.5.7.3.1", KeyKind.AK)

    def test_device_identities_have_no_purpose_of_their_own(self):
        assert self.chain("1.3.6.1.5.5.7.3.2", KeyKind.IDEVID, leaf=IDEVID)


class TestProfile:
    def test_device(self):
        said = validate(IDEVID, KeyKind.IDEVID).profile
        assert (said.hardware_type, said.hardware_serial) == (TPM_2_0, b"SN 1".hex())
        assert said.permanent_identifier == "ab" * 32
        assert said.policies == (RESIDENCY, FIXED)
        assert (said.resident, said.restricted) == (True, False)

    def test_tpm_attributes(self):
        names = pki.directory_san(pki.tpm_name("id:53544D20", "ST33", "id:01"))
        said = validate(key_certificate(names, purposes=(pki.AK_PURPOSE,)), KeyKind.AK).profile
        assert (said.vendor, said.manufacturer, said.virtual) == ("STM", "STMicroelectronics", False)
        assert (said.model, said.version, said.restricted, said.resident) == ("ST33", "id:01", True, True)
        assert not [note for note in said.notes if "restricted" in note]

    def test_permanent_identifier_may_be_left_out(self):
        names = pki.seq(pki.tlv(0xA0, pki.oid(PERMANENT), pki.tlv(0xA0, pki.seq(pki.oid(EK_DIGEST)))))
        certificate = key_certificate(pki.extension(pki.SUBJECT_ALT_NAME, names), purposes=(pki.AK_PURPOSE,))
        assert validate(certificate, KeyKind.AK).profile.permanent_identifier is None

    def test_gce(self):
        said = validate(key_certificate(gce()), KeyKind.AK).profile
        assert said.gce == GceInstance(
            zone="z",
            project_number=7,
            project_id="p",
            instance_id=1 << 63,
            instance_name="vm",
            production=None,
        )
        assert any("restricted" in note for note in said.notes)

    def test_gce_properties_may_say_other_things(self):
        extra = gce(properties=gce_properties(pki.tlv(0xA0, pki.integer(0)), pki.tlv(0xA2, pki.NULL)))
        assert validate(key_certificate(extra), KeyKind.AK).profile.gce.production is None

    @pytest.mark.parametrize(
        "extra",
        [
            pki.extension(GCE, b"junk"),
            pki.extension(GCE, pki.seq(pki.utf8("z"), pki.utf8("not a number"))),
            pki.extension(GCE, pki.seq(pki.tlv(0x0C, b"\xff"), pki.integer(1))),
            pki.extension(GCE, pki.seq(pki.utf8("z"), pki.integer(1 << 400))),
            pki.extension(GCE, pki.seq(pki.utf8("z"), pki.tlv(0x02))),
            pki.extension(
                pki.SUBJECT_ALT_NAME,
                pki.seq(pki.tlv(0xA0, pki.oid(HARDWARE_MODULE), pki.tlv(0xA0, pki.NULL))),
            ),
        ],
    )
    def test_a_known_extension_that_does_not_parse_is_malformed(self, extra):
        error = refusal(key_certificate(extra, purposes=(pki.AK_PURPOSE,)), KeyKind.AK)
        assert isinstance(error, MalformedInputError)
        assert error.reason is Reason.EK_CERTIFICATE_MALFORMED


class TestRealCertificates:
    def load(self, file) -> bytes:
        return split_bundle(shared_path(f"corpus/{file}").read_bytes())[0]

    def test_azure_confidential_vm(self):
        folder = "flashbots_attested-tls-proxy/certs"
        root, issuer = self.load(f"{folder}/azure_1.der"), self.load(f"{folder}/azure_2.der")
        certificate = self.load(f"{folder}/cert-ak_azure.der") + bytes(3000)
        valid = validate(certificate, KeyKind.AK, anchors=(root,), intermediates=(issuer,), now=IN_2026)
        assert len(valid.chain) == 3
        assert valid.profile.restricted

    @pytest.mark.parametrize(
        ("folder", "leaf", "chain", "project"),
        [
            (
                "salrashid123_gcp-vtpm-ek-ak/certs",
                "akcert.pem",
                ("ak_intermediate.pem", "ak_root.pem"),
                "core-eso",
            ),
            (
                "automata-network_automata-tpm-attestation",
                "TPMTest_cert6.der",
                ("TPMTest_cert7.der", "TPMTest_cert8.der"),
                "exh-pom-sdk-test-428906",
            ),
        ],
    )
    def test_google_compute_engine(self, folder, leaf, chain, project):
        issuer, root = (self.load(f"{folder}/{name}") for name in chain)
        valid = validate(
            self.load(f"{folder}/{leaf}"), KeyKind.AK, anchors=(root,), intermediates=(issuer,), now=IN_2026
        )
        assert valid.profile.gce.project_id == project
        assert valid.profile.gce.production is True
        assert str(valid.profile.gce.instance_id) in subject_of(valid)

    def test_google_certificates_of_2021_say_ek_of_a_signing_key(self):
        certificate = self.load("salrashid123_tpm2/certs/cert-ek_GOOG_67cbcce632.der")
        store = [path.read_bytes() for path in sorted(shared_path("corpus/tpm-ca-store").glob("*.der"))]
        anchors, _ = TrustAnchors.sift(store)
        valid = validate_key_certificate(
            certificate, kind=KeyKind.AK, anchors=anchors, public=None, now=IN_2026
        )
        assert (valid.profile.vendor, valid.profile.gce.zone) == ("GOOG", "us-central1-a")


def subject_of(valid: EndorsedKey) -> str:
    return parse_certificate(valid.certificate).subject_text
