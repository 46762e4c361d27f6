"""Secure Boot variables, from whatever form they are at hand in, to the bytes that firmware measures.

Forms: EFI signature lists (.esl), authenticated updates (.auth: UEFI 2.10, section 8.2.2), certificates with the
GUID of their owner, and dumps of efivarfs (four bytes of attributes before the value).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from verifier.errors import MalformedInputError
from verifier.predict.errors import PredictionError
from verifier.tcg.guid import GUID_SIZE, guid_bytes, guid_text
from verifier.tcg.signature_list import SIGNATURE_TYPES, Signature, parse_signature_lists
from verifier.tcg.uefi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, SHIM_LOCK

ATTRIBUTES_SIZE: Final = 4
_MAX_ATTRIBUTES: Final = 0xFF
_X509_LIST: Final = guid_bytes("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_PKCS7_GUID: Final = guid_bytes("4aafd29d-68df-49ee-8aa9-347d375665a7")
_LIST_HEADER: Final = struct.Struct("<16sIII")
_AUTH_HEADER: Final = struct.Struct("<16sIHH16s")
_TIME_SIZE: Final = 16
_WIN_CERT_EFI_GUID: Final = 0x0EF1
_KNOWN_TYPES: Final = frozenset(SIGNATURE_TYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimVariables:
    """What shim measures beyond images; None where only the shim itself says it."""

    sbat_level: bytes | None = None
    mok_list: bytes | None = None
    """`MokListRT`: the vendor's certificate and the machine owner's, as signature lists."""
    mok_list_x: bytes | None = None
    mok_list_trusted: bytes | None = None
    insecure_state: bytes | None = None
    """`MokSBStateRT`: there when the machine's owner switched shim's verification off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureBootVariables:
    """Values as firmware measures them: signature lists, empty where the variable does not exist."""

    enabled: bool
    pk: bytes = b""
    kek: bytes = b""
    db: bytes = b""
    dbx: bytes = b""
    dbt: bytes | None = None
    """Measured only where it exists."""
    shim: ShimVariables = ShimVariables()


def signature_database(data: bytes, owner: bytes | None) -> bytes:
    """The signature lists in `data`: .esl, .auth, a dump of efivarfs, or one certificate (DER or PEM).

    Args:
        data: the file.
        owner: GUID, 16 bytes as measured, for a bare certificate.

    Raises:
        PredictionError: it is none of these, or a certificate without an owner.
        MalformedInputError: signature lists whose sizes do not add up.
    """
    if data.startswith((b"-----BEGIN", b"\x30\x82")):
        if owner is None:
            raise PredictionError("a certificate is measured with the GUID of its owner; say which (--owner)")
        return certificate_list(_certificate(data), owner)
    for start in (0, _after_authentication(data), _after_attributes(data)):
        if data[start : start + GUID_SIZE] in _KNOWN_TYPES or (start and start == len(data)):
            parse_signature_lists(data[start:])
            return data[start:]
    if not data:
        return b""
    raise PredictionError("neither signature lists, nor an authenticated update, nor a certificate")


def certificate_list(certificate: bytes, owner: bytes) -> bytes:
    """An EFI_SIGNATURE_LIST with one X.509 certificate (DER)."""
    entry = len(owner) + len(certificate)
    return _LIST_HEADER.pack(_X509_LIST, _LIST_HEADER.size + entry, 0, entry) + owner + certificate


def split_lists(database: bytes) -> tuple[tuple[Signature, ...], ...]:
    """The entries of each signature list; which list an entry stands in matters to shim.

    Raises `MalformedInputError` for sizes that do not add up.
    """
    parse_signature_lists(database)
    lists: list[tuple[Signature, ...]] = []
    start = 0
    while start < len(database):
        size = _LIST_HEADER.unpack_from(database, start)[1]
        lists.append(parse_signature_lists(database[start : start + size]))
        start += size
    return tuple(lists)


def from_efivars(values: Mapping[str, bytes]) -> SecureBootVariables:
    """From `Name-GUID` to what efivarfs holds: four bytes of attributes, then the value.

    Raises:
        PredictionError: `SecureBoot` is missing or not a flag.
        MalformedInputError: a value shorter than its attributes.
    """
    plain = {_key(name): _without_attributes(name, value) for name, value in values.items()}
    return from_variables(plain)


def from_variables(values: Mapping[tuple[str, bytes], bytes]) -> SecureBootVariables:
    """From name and vendor to value, as a variable store has them.

    Raises `PredictionError` where `SecureBoot` is missing or not a flag.
    """
    flag = values.get(("SecureBoot", GLOBAL_VARIABLE))
    if flag not in (b"\0", b"\x01"):
        raise PredictionError(
            "SecureBoot is missing among the variables, or is not 0 or 1", where="SecureBoot"
        )
    return SecureBootVariables(
        enabled=flag == b"\x01",
        pk=values.get(("PK", GLOBAL_VARIABLE), b""),
        kek=values.get(("KEK", GLOBAL_VARIABLE), b""),
        db=values.get(("db", IMAGE_SECURITY_DATABASE), b""),
        dbx=values.get(("dbx", IMAGE_SECURITY_DATABASE), b""),
        dbt=values.get(("dbt", IMAGE_SECURITY_DATABASE)),
        shim=ShimVariables(
            sbat_level=values.get(("SbatLevelRT", SHIM_LOCK)),
            mok_list=values.get(("MokListRT", SHIM_LOCK)),
            mok_list_x=values.get(("MokListXRT", SHIM_LOCK)),
            mok_list_trusted=values.get(("MokListTrustedRT", SHIM_LOCK)),
            insecure_state=values.get(("MokSBStateRT", SHIM_LOCK)),
        ),
    )


def parse_guid(text: str) -> bytes:
    """A GUID in its usual text form as the 16 bytes that are measured. Raises `PredictionError`."""
    try:
        raw = guid_bytes(text.strip().lower())
    except (ValueError, struct.error) as error:
        raise PredictionError(f"{text!r} is not a GUID") from error
    if len(raw) != GUID_SIZE or guid_text(raw) != text.strip().lower():
        raise PredictionError(f"{text!r} is not a GUID")
    return raw


def concatenated(databases: Sequence[bytes]) -> bytes:
    """Several databases as one variable."""
    return b"".join(databases)


def _key(name: str) -> tuple[str, bytes]:
    plain, _, vendor = name.partition("-")
    try:
        return plain, parse_guid(vendor)
    except PredictionError as error:
        raise PredictionError("a variable is named Name-GUID, as efivarfs does", where=name) from error


def _without_attributes(name: str, value: bytes) -> bytes:
    if len(value) < ATTRIBUTES_SIZE:
        raise MalformedInputError(name, len(value), "no room for the attributes before the value")
    return value[ATTRIBUTES_SIZE:]


def _after_authentication(data: bytes) -> int:
    """Offset after EFI_VARIABLE_AUTHENTICATION_2, or 0 where `data` does not begin with one."""
    if len(data) < _AUTH_HEADER.size:
        return 0
    _, length, _, kind, guid = _AUTH_HEADER.unpack_from(data)
    end: int = _TIME_SIZE + length
    return end if kind == _WIN_CERT_EFI_GUID and guid == _PKCS7_GUID and end <= len(data) else 0


def _after_attributes(data: bytes) -> int:
    """Offset after the attributes that efivarfs puts before a value, or 0 where there are none."""
    attributes = int.from_bytes(data[:ATTRIBUTES_SIZE], "little")
    return ATTRIBUTES_SIZE if 0 < attributes <= _MAX_ATTRIBUTES else 0


def _certificate(data: bytes) -> bytes:
    try:
        if data.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
        x509.load_der_x509_certificate(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise PredictionError(f"not a certificate: {error}") from error
    return data
