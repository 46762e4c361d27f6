"""shim: what it carries, what lets an image run under it, what it adds to PCRs 7 and 14."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import pe
from tests.unit.predict import loaders
from tests.unit.predict.conftest import OWNER
from tests.unit.predict.test_variables import hashes_list
from verifier.errors import EvidenceError, MalformedInputError, UnsupportedError
from verifier.predict.authenticode import read_image
from verifier.predict.errors import PredictionError
from verifier.predict.pe import parse_pe
from verifier.predict.shim import (
    SBAT_ORIGINAL,
    is_shim,
    measured_sbat_level,
    mok_events,
    read_shim,
    setup_authority,
    shim_authority,
)
from verifier.predict.variables import ShimVariables, certificate_list
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.uefi import IMAGE_SECURITY_DATABASE, SHIM_LOCK

PLAIN = pe.build()


def shim_of(vendor: bytes, **options):
    return read_shim(parse_pe(loaders.shim(vendor, **options)))


def test_a_shim_says_its_version_its_vendor_and_its_sbat_level(pki):
    image = parse_pe(loaders.shim(pki.ca.der, forbidden=hashes_list(b"f" * 32)))
    assert is_shim(image)
    assert not is_shim(parse_pe(loaders.grub()))
    shim = read_shim(image)
    assert (shim.version, shim.vendor, shim.vendor_is_database) == ((16, 1), pki.ca.der, False)
    assert (shim.forbidden, shim.sbat_automatic) == (hashes_list(b"f" * 32), loaders.SBAT)
    assert shim.mok_list == certificate_list(pki.ca.der, SHIM_LOCK)


def test_a_vendor_database_is_mirrored_as_it_is_and_an_empty_one_gets_a_filler(pki):
    database = pki.ca.entry + pki.db.entry
    assert shim_of(database).vendor_is_database
    assert shim_of(database).mok_list == database
    empty = shim_of(b"")
    assert not empty.vendor_is_database
    assert empty.mok_list.endswith(SHIM_LOCK + bytes(32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "15.6"}, r"shim 15\.6 measures other names"),
        ({"ident": b"UEFI SHIM"}, "does not say its version"),
    ],
)
def test_shims_that_measure_otherwise_are_not_guessed_about(pki, options, message):
    with pytest.raises(UnsupportedError, match=message):
        shim_of(pki.ca.der, **options)


def test_broken_tables_are_malformed(pki):
    with pytest.raises(MalformedInputError, match=r"\.sbatlevel has 4 bytes"):
        shim_of(b"", level=b"\0\0\0\0")
    with pytest.raises(MalformedInputError, match="does not lead to an SBAT level"):
        shim_of(b"", level=b"\0" * 12 + b"level\0")
    image = bytearray(loaders.shim(pki.ca.der))
    at = image.index(pki.ca.der) - 16
    image[at : at + 4] = b"\xff\xff\xff\x7f"
    with pytest.raises(MalformedInputError, match="the vendor's certificates"):
        read_shim(parse_pe(bytes(image)))


def test_the_newer_sbat_level_wins_and_is_reset_while_secure_boot_is_off(pki, variables):
    shim = shim_of(pki.ca.der)
    older, newer = b"sbat,1,2022052400\ngrub,2\n", b"sbat,1,2026010100\ngrub,9\n"
    for own, expected in (
        (None, loaders.SBAT),
        (older, loaders.SBAT),
        (newer, newer),
        (loaders.SBAT, loaders.SBAT),
    ):
        machine = replace(variables, shim=ShimVariables(sbat_level=own))
        assert measured_sbat_level(shim, machine, enabled=True) == expected
        assert measured_sbat_level(shim, machine, enabled=False) == SBAT_ORIGINAL
    authority = setup_authority(shim, None, enabled=True)
    assert (authority.variable, authority.value, authority.what) == (
        "SbatLevel",
        loaders.SBAT,
        "sbat,1,2025021800",
    )


def test_a_machine_whose_owner_switched_verification_off_is_not_predicted(pki, variables):
    machine = replace(variables, shim=ShimVariables(insecure_state=b"\1"))
    with pytest.raises(PredictionError, match="switched off"):
        setup_authority(shim_of(pki.ca.der), machine, enabled=True)
    assert setup_authority(
        shim_of(pki.ca.der), replace(variables, shim=ShimVariables(insecure_state=b"\0")), enabled=True
    )


def signed(signer) -> object:
    return read_image("grub.efi", pe.sign(PLAIN, signer))


def test_db_goes_before_the_vendor_and_the_vendor_is_measured_through_mok_list(pki, variables):
    shim = shim_of(pki.stranger.der)
    by_db = shim_authority(signed(pki.db.signer()), shim, variables)
    assert (by_db.vendor, by_db.variable) == (IMAGE_SECURITY_DATABASE, "db")
    by_vendor = shim_authority(signed(pki.stranger.signer()), shim, variables)
    assert (by_vendor.vendor, by_vendor.variable) == (SHIM_LOCK, "MokListRT")
    assert by_vendor.value == SHIM_LOCK + pki.stranger.der


def test_a_vendor_database_is_measured_under_its_own_name(pki, variables):
    shim = shim_of(pki.stranger.entry)
    authority = shim_authority(signed(pki.stranger.signer()), shim, variables)
    assert (authority.vendor, authority.variable) == (IMAGE_SECURITY_DATABASE, "vendor_db")
    assert authority.value == OWNER + pki.stranger.der


def test_the_machines_own_mok_list_counts(pki, variables):
    shim = shim_of(b"")
    machine = replace(variables, shim=ShimVariables(mok_list=pki.stranger.entry))
    assert shim_authority(signed(pki.stranger.signer()), shim, machine).variable == "MokListRT"


def test_digests_go_before_certificates(pki, variables):
    digest = pe.reference_digest(PLAIN)
    machine = replace(variables, shim=ShimVariables(mok_list=hashes_list(digest)))
    authority = shim_authority(signed(pki.db.signer()), shim_of(b""), machine)
    assert (authority.variable, authority.value) == ("MokListRT", OWNER + digest)


def test_a_key_for_kernel_modules_lets_no_image_run(pki, variables):
    machine = replace(variables, shim=ShimVariables(mok_list=pki.modules.entry))
    with pytest.raises(PredictionError, match="signed by CN=modules"):
        shim_authority(signed(pki.modules.signer()), shim_of(b""), machine)


def test_what_nothing_allows_or_something_forbids_would_not_boot(pki, variables):
    shim = shim_of(pki.ca.der)
    with pytest.raises(PredictionError, match="neither db nor shim's CN=ca lets it run"):
        shim_authority(signed(pki.stranger.signer()), shim, variables)
    with pytest.raises(PredictionError, match="neither db nor shim's own keys"):
        shim_authority(signed(pki.stranger.signer()), shim_of(b""), variables)
    image = signed(pki.db.signer())
    with pytest.raises(PredictionError, match="dbx forbids"):
        shim_authority(image, shim, replace(variables, dbx=pki.db.entry))
    with pytest.raises(PredictionError, match="MokListX forbids"):
        shim_authority(
            image, shim_of(pki.ca.der, forbidden=hashes_list(pe.reference_digest(PLAIN))), variables
        )
    with pytest.raises(PredictionError, match="MokListX forbids"):
        shim_authority(image, shim, replace(variables, shim=ShimVariables(mok_list_x=pki.db.entry)))


def test_pcr_14_is_what_shim_mirrors_or_what_the_machine_has(pki, variables):
    shim = shim_of(pki.ca.der)
    fresh = mok_events(shim, None, HashAlg.SHA256)
    assert [event.label for event in fresh] == ["MokList", "MokListX", "MokListTrusted"]
    assert fresh[0].digest == HashAlg.SHA256.digest(certificate_list(pki.ca.der, SHIM_LOCK))
    assert fresh[2].digest == HashAlg.SHA256.digest(b"\1")
    own = ShimVariables(mok_list=b"list", mok_list_x=b"x", mok_list_trusted=b"\0")
    machine = mok_events(shim, replace(variables, shim=own), HashAlg.SHA256)
    assert [event.digest for event in machine] == [
        HashAlg.SHA256.digest(each) for each in (b"list", b"x", b"\0")
    ]


@settings(max_examples=150, deadline=500)
@given(st.data())
def test_hostile_shims_give_a_shim_or_the_typed_error(data):
    image = bytearray(loaders.shim(b"\x30certificate"))
    for _ in range(data.draw(st.integers(1, 10))):
        image[data.draw(st.integers(0x40, len(image) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(EvidenceError):
        read_shim(parse_pe(bytes(image)))
