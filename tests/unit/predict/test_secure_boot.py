"""PCR 7: what is measured of the variables, and which entry of db is measured for an image."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest

from tests import pe
from tests.unit.predict.conftest import OWNER, issue
from tests.unit.predict.test_variables import hashes_list
from verifier.predict.authenticode import read_image
from verifier.predict.errors import PredictionError
from verifier.predict.secure_boot import (
    Authority,
    authority_events,
    configuration_events,
    firmware_authority,
    variable_data,
)
from verifier.predict.variables import SecureBootVariables, certificate_list
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.guid import guid_bytes
from verifier.tcg.uefi import IMAGE_SECURITY_DATABASE

PLAIN = pe.build()


def test_the_variables_of_a_machine_without_keys_are_measured_as_another_project_does():
    """trusted-execution-clusters/compute-pcrs, test-fixtures/qemu-ovmf/fedora-42, pcr7-sb-disabled.json."""
    events = configuration_events(SecureBootVariables(enabled=False), HashAlg.SHA256)
    assert [(event.label, event.digest.hex()[:16]) for event in events] == [
        ("SecureBoot", "115aa827dbccfb44"),
        ("PK", "dea7b80ab53a3daa"),
        ("KEK", "e670e121fcebd473"),
        ("db", "baf89a3ccace5275"),
        ("dbx", "9f75b6823bff6af1"),
        ("00000000", "df3f619804a92fdb"),
    ]


def test_dbt_is_measured_only_where_it_exists(variables):
    with_dbt = replace(variables, dbt=b"")
    assert [event.label for event in configuration_events(with_dbt, HashAlg.SHA256)][-2:] == [
        "dbt",
        "00000000",
    ]


def test_the_entry_is_measured_with_its_owner_under_the_name_of_the_database(pki, variables):
    authority = firmware_authority(read_image("image", pe.sign(PLAIN, pki.db.signer())), variables)
    (event,) = authority_events([authority, authority], HashAlg.SHA256)
    value = OWNER + pki.db.der
    covered = IMAGE_SECURITY_DATABASE + struct.pack("<QQ", 2, len(value)) + "db".encode("utf-16-le") + value
    assert event.digest == hashlib.sha256(covered).digest()
    assert event.label == "db: CN=db"
    assert variable_data(IMAGE_SECURITY_DATABASE, "db", value) == covered


def test_signatures_go_before_the_order_of_db(pki, variables):
    """edk2 walks the image's signatures, and db for each."""
    image = read_image("image", pe.sign(pe.sign(PLAIN, pki.leaf.signer()), pki.db.signer()))
    assert firmware_authority(image, variables).what == "CN=ca"
    other = read_image("image", pe.sign(pe.sign(PLAIN, pki.stranger.signer()), pki.db.signer()))
    assert firmware_authority(other, variables).what == "CN=db"


def test_of_a_list_firmware_tries_every_certificate(pki, variables):
    one = pki.db
    two = next(each for each in iter(lambda: issue("cb"), None) if len(each.der) == len(one.der))
    entries = OWNER + one.der + OWNER + two.der
    kind = guid_bytes("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
    listed = kind + struct.pack("<III", 28 + len(entries), 0, 16 + len(one.der)) + entries
    image = read_image("image", pe.sign(PLAIN, two.signer()))
    assert firmware_authority(image, replace(variables, db=listed)).what == "CN=cb"


def test_a_digest_in_db_lets_an_unsigned_or_strangely_signed_image_run(pki, variables):
    digest = pe.reference_digest(PLAIN)
    listed = replace(variables, db=variables.db + hashes_list(b"x" * 32, digest))
    for image in (PLAIN, pe.sign(PLAIN, pki.stranger.signer())):
        authority = firmware_authority(read_image("image", image), listed)
        assert authority == Authority(IMAGE_SECURITY_DATABASE, "db", OWNER + digest, f"sha256 {digest.hex()}")


@pytest.mark.parametrize(
    ("signed", "message"),
    [(False, "not signed, and its digest is not listed"), (True, "signed by CN=stranger")],
)
def test_an_image_that_nothing_allows_would_not_boot(pki, variables, signed, message):
    image = pe.sign(PLAIN, pki.stranger.signer()) if signed else PLAIN
    with pytest.raises(PredictionError, match=message) as caught:
        firmware_authority(read_image("loader.efi", image), variables)
    assert caught.value.structure == "loader.efi"


def revocation(certificate, kind: str, alg: HashAlg) -> bytes:
    digest = alg.digest(certificate.tbs_certificate_bytes) + bytes(16)
    return guid_bytes(kind) + struct.pack("<III", 44 + len(digest), 0, 16 + len(digest)) + OWNER + digest


def test_what_dbx_forbids_would_not_boot(pki, variables):
    image = read_image("image", pe.sign(PLAIN, pki.leaf.signer(pki.ca)))
    forbidden = {
        "sha256 digest": hashes_list(pe.reference_digest(PLAIN)),
        "forbids CN=ca": certificate_list(pki.ca.der, OWNER),
        "forbids CN=leaf": certificate_list(pki.leaf.der, OWNER),
        "revokes CN=ca": revocation(
            pki.ca.certificate, "3bd2a492-96c0-4079-b420-fcf98ef103ed", HashAlg.SHA256
        ),
        "revokes CN=leaf": revocation(
            pki.leaf.certificate, "7076876e-80c2-4ee6-aad2-28b349a6865b", HashAlg.SHA384
        ),
    }
    for message, dbx in forbidden.items():
        with pytest.raises(PredictionError, match=message):
            firmware_authority(image, replace(variables, dbx=dbx))
    harmless = hashes_list(b"y" * 32) + certificate_list(pki.stranger.der, OWNER)
    assert firmware_authority(image, replace(variables, dbx=harmless)).what == "CN=ca"
