"""Secure Boot variables from the files people have."""

from __future__ import annotations

import contextlib
import struct

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.predict.conftest import OWNER, unpacked, vectors
from verifier.errors import EvidenceError, MalformedInputError, UnsupportedError
from verifier.predict import variable_store
from verifier.predict.errors import PredictionError
from verifier.predict.variable_store import is_variable_store, read_variable_store
from verifier.predict.variables import (
    certificate_list,
    from_efivars,
    parse_guid,
    signature_database,
    split_lists,
)
from verifier.tcg.guid import guid_bytes

SHA256_LIST = guid_bytes("c1c41626-504c-4092-aca9-41f936934328")


def hashes_list(*digests: bytes) -> bytes:
    entries = b"".join(OWNER + digest for digest in digests)
    return SHA256_LIST + struct.pack("<III", 28 + len(entries), 0, 48) + entries


def update(payload: bytes) -> bytes:
    """EFI_VARIABLE_AUTHENTICATION_2 before a payload."""
    signature = b"\x30\x03\x02\x01\x01"
    guid = guid_bytes("4aafd29d-68df-49ee-8aa9-347d375665a7")
    return bytes(16) + struct.pack("<IHH", 24 + len(signature), 0x0200, 0x0EF1) + guid + signature + payload


def test_lists_updates_dumps_and_certificates_are_the_same_variable(pki):
    expected = pki.db.entry
    pem = pki.db.certificate.public_bytes(Encoding.PEM)
    for form in (expected, update(expected), b"\x27\0\0\0" + expected, pki.db.der, pem):
        assert signature_database(form, OWNER) == expected


def test_an_empty_file_and_an_update_that_empties_are_an_empty_variable():
    assert signature_database(b"", None) == b""
    assert signature_database(update(b""), None) == b""
    assert signature_database(b"\x27\0\0\0", None) == b""


def test_a_bare_certificate_needs_the_owner_it_is_measured_with(pki):
    with pytest.raises(PredictionError, match="--owner"):
        signature_database(pki.db.der, None)
    with pytest.raises(PredictionError, match="not a certificate"):
        signature_database(b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n", OWNER)


@pytest.mark.parametrize("form", [b"junk", b"\0" * 64, b"x" * 500])
def test_anything_else_is_refused(form):
    with pytest.raises(PredictionError, match="neither signature lists"):
        signature_database(form, OWNER)


def test_lists_whose_sizes_do_not_add_up_are_malformed(pki):
    with pytest.raises(MalformedInputError):
        signature_database(pki.db.entry[:-1], None)


def test_entries_stay_in_their_lists(pki):
    database = pki.db.entry + hashes_list(b"a" * 32, b"b" * 32) + pki.ca.entry
    lists = split_lists(database)
    assert [[entry.kind for entry in entries] for entries in lists] == [
        ["x509"],
        ["sha256", "sha256"],
        ["x509"],
    ]
    assert lists[1][1].data == b"b" * 32


def test_guids_are_read_as_they_are_measured():
    assert parse_guid("8BE4DF61-93CA-11D2-AA0D-00E098032B8C").hex() == "61dfe48bca93d211aa0d00e098032b8c"
    for text in (
        "",
        "8be4df61",
        "8be4df61-93ca-11d2-aa0d-00e098032b",
        "x" * 36,
        "8be4df6193ca11d2aa0d00e098032b8c",
    ):
        with pytest.raises(PredictionError, match="is not a GUID"):
            parse_guid(text)


GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"


def test_efivars_lose_their_attributes_and_absent_variables_are_empty(pki):
    read = from_efivars({f"SecureBoot-{GLOBAL}": b"\6\0\0\0\1", f"PK-{GLOBAL}": b"\x27\0\0\0" + pki.db.entry})
    assert (read.enabled, read.pk, read.kek, read.db, read.dbx, read.dbt) == (
        True,
        pki.db.entry,
        b"",
        b"",
        b"",
        None,
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "SecureBoot is missing"),
        ({f"SecureBoot-{GLOBAL}": b"\6\0\0\0\2"}, "SecureBoot is missing"),
        ({"SecureBoot-605dab50-e046-4300-abb6-3dd810dd8b23": b"\6\0\0\0\1"}, "SecureBoot is missing"),
        ({f"SecureBoot-{GLOBAL}": b"\6\0"}, "no room for the attributes"),
        ({"SecureBoot": b"\6\0\0\0\1"}, "Name-GUID"),
    ],
)
def test_efivars_that_do_not_say_whether_secure_boot_is_on_are_refused(values, message):
    with pytest.raises(EvidenceError, match=message):
        from_efivars(values)


@pytest.mark.parametrize("name", ["own", "ms", "off"])
def test_a_variable_store_holds_what_another_tool_reads_from_it(name):
    """`virt-fw-vars` made these stores and listed them."""
    boots = vectors("boots")
    store = unpacked(boots["stores"][name])
    assert is_variable_store(store)
    listed = {key: bytes.fromhex(value) for key, value in boots["variables"][name].items()}
    assert read_variable_store(store) == from_efivars(listed)


def test_what_is_no_variable_store_is_refused():
    store = unpacked(vectors("boots")["stores"]["own"])
    assert not is_variable_store(b"")
    with pytest.raises(UnsupportedError, match="firmware volume"):
        read_variable_store(b"x" * 100)
    with pytest.raises(UnsupportedError, match="authenticated"):
        read_variable_store(store[:0x48] + bytes(16) + store[0x58:])
    with pytest.raises(MalformedInputError, match="a store of"):
        read_variable_store(store[:4096])
    with pytest.raises(MalformedInputError, match="a volume header"):
        read_variable_store(store[:60])


def test_variables_that_do_not_fit_or_never_end_are_malformed(monkeypatch):
    store = bytearray(unpacked(vectors("boots")["stores"]["own"]))
    with monkeypatch.context() as patch:
        patch.setattr(variable_store, "MAX_VARIABLES", 2)
        with pytest.raises(MalformedInputError, match="more than 2 variables"):
            read_variable_store(bytes(store))
    first = 0x48 + 28
    store[first + 40 : first + 44] = b"\xff\xff\xff\x7f"
    with pytest.raises(MalformedInputError, match="a variable of") as caught:
        read_variable_store(bytes(store))
    assert caught.value.offset == first


def test_deleted_variables_do_not_count():
    store = bytearray(unpacked(vectors("boots")["stores"]["own"]))
    before = read_variable_store(bytes(store))
    at = store.index("PK\0".encode("utf-16-le")) - 60
    store[at + 2] = 0x3C
    after = read_variable_store(bytes(store))
    assert (before.enabled, after.enabled, after.pk) == (True, False, b"")


@settings(max_examples=150, deadline=400)
@given(st.data())
def test_hostile_stores_and_databases_give_variables_or_the_typed_error(data):
    store = bytearray(unpacked(vectors("boots")["stores"]["own"])[:20000])
    for _ in range(data.draw(st.integers(1, 8))):
        store[data.draw(st.integers(0, 6000))] = data.draw(st.integers(0, 255))
    blob = data.draw(st.binary(max_size=200))
    for read in (
        lambda: read_variable_store(bytes(store)),
        lambda: signature_database(certificate_list(b"der", OWNER)[:28] + blob, OWNER),
        lambda: split_lists(blob),
    ):
        with contextlib.suppress(EvidenceError):
            read()
