"""What a certificate says of its TPM, wherever its maker wrote it."""

from __future__ import annotations

import json

import pytest

from tests import pki
from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.profile import EkProfile, read_profile

ROOT = pki.Ca.root()


def profile(**changes) -> EkProfile:
    certificate = parse_certificate(ROOT.ek(**changes))
    return read_profile(certificate, certificate.key)


def test_vmware():
    said = profile()
    assert (said.manufacturer_id, said.vendor) == ("id:564D5700", "VMW")
    assert (said.manufacturer, said.virtual) == ("VMware (vTPM)", True)
    assert (said.model, said.version) == ("VMware TPM2", "id:00020065")
    assert (said.eku_present, said.san_present, said.notes) == (True, True, ())


@pytest.mark.parametrize(
    ("manufacturer", "vendor", "virtual"),
    [
        ("id:564D5700", "VMW", True),
        ("id:564d5700", "VMW", True),
        ("id:00001014", "IBM", True),
        ("id:49424D00", "IBM", True),
        ("id:4D534654", "MSFT", True),
        ("id:474F4F47", "GOOG", True),
        ("id:414D5A4E", "AMZN", True),
        ("id:51454D55", "QEMU", True),
        ("id:53494D30", "SIM0", True),
        ("id:494E5443", "INTC", False),
        ("id:414D4400", "AMD", False),
        ("id:49465800", "IFX", False),
        ("id:53544D20", "STM", False),
        ("id:4E544300", "NTC", False),
        ("id:54535430", "TST0", None),
    ],
)
def test_vendors(manufacturer, vendor, virtual):
    said = profile(directory=pki.tpm_name(manufacturer=manufacturer))
    assert (said.vendor, said.virtual) == (vendor, virtual)
    assert said.manufacturer
    assert said.manufacturer_id == manufacturer


@pytest.mark.parametrize(
    "manufacturer", ["id:", "id:56", "id:00000000", "id:FFFFFFFF", "id:XXXXXXXX", "ACME", "id:564D57002"]
)
def test_what_is_no_vendor_id_is_noted(manufacturer):
    said = profile(directory=pki.tpm_name(manufacturer=manufacturer))
    assert (said.vendor, said.manufacturer, said.virtual) == (None, None, None)
    assert said.manufacturer_id == manufacturer
    assert any("not a TCG vendor id" in note for note in said.notes)


def test_attributes_in_one_rdn():
    together = pki.seq(
        pki.rdn(
            *(
                (kind, pki.utf8(text))
                for kind, text in ((pki.MANUFACTURER, "id:49465800"), (pki.MODEL, "SLB"))
            )
        )
    )
    said = profile(directory=together)
    assert (said.vendor, said.model, said.version) == ("IFX", "SLB", None)


def test_attributes_in_the_subject_alone():
    said = profile(directory=b"", subject=pki.tpm_name("id:494E5443", "ADL", "id:02580012"))
    assert (said.vendor, said.model, said.version) == ("INTC", "ADL", "id:02580012")
    assert not said.san_present


def test_subject_and_alternative_name_may_agree():
    assert profile(subject=pki.tpm_name()).notes == ()


def test_subject_and_alternative_name_that_disagree():
    said = profile(subject=pki.tpm_name(model="Other"))
    assert said.model == "VMware TPM2"
    assert any("both 'VMware TPM2' and 'Other'" in note for note in said.notes)


def test_directory_names_beside_other_names():
    names = pki.seq(
        pki.tlv(0x82, b"example.org"),
        pki.tlv(0xA0, pki.oid("1.3.6.1.5.5.7.8.4"), pki.tlv(0xA0, pki.seq())),
        pki.tlv(0xA4, pki.tpm_name(model="One")),
    )
    assert profile(directory=b"", extra=(pki.extension(pki.SUBJECT_ALT_NAME, names),)).model == "One"


def test_nothing_said():
    said = profile(directory=b"", purposes=())
    assert (said.manufacturer_id, said.vendor, said.manufacturer, said.virtual) == (None, None, None, None)
    assert (said.eku_present, said.san_present) == (False, False)
    assert len(said.notes) == 2


def test_is_ready_for_json():
    mapping = profile().as_mapping()
    assert json.loads(json.dumps(mapping)) == mapping
    assert mapping["virtual"] is True
    assert mapping["key"] == "EC-secp256r1"
    assert mapping["signature"] == "ECDSA with SHA256"
