"""The second certificate reader: asn1crypto, for real certificates that `cryptography` refuses.

Lenient in form only: sets out of order, dates in other encodings, values RFC 5280 would write differently.
Not lenient in what protects: lengths are definite and exact, an extension occurs once, every critical
extension is listed, and every decoded value is the one the signature covers.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from asn1crypto import core, x509

from verifier.crypto import certificate as model
from verifier.crypto import der
from verifier.crypto.cert_algorithms import read_key, read_signature_algorithm
from verifier.crypto.certificate import (
    AlternativeNames,
    BasicConstraints,
    Certificate,
    ExtensionSet,
    KeyUsage,
)
from verifier.crypto.names import attributes

T = TypeVar("T")

MAX_EXTENSIONS: Final = 64
_OTHER_NAME: Final = 0xA0
_DIRECTORY_NAME: Final = 0xA4
_EXPLICIT: Final = 0xA0
_TIME_TAGS: Final = {0x17: core.UTCTime, 0x18: core.GeneralizedTime}


def _decode(what: str, element: der.Element, decode: Callable[[bytes], T]) -> T:
    """Run an asn1crypto decoder over a value; whatever it raises is one typed error here."""
    try:
        return decode(element.value)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        detail = str(error).split("\n", 1)[0].replace("Error parsing asn1crypto.", "not a ")
        raise der.malformed(f"{what}: {detail}", element.start) from error


def read_lenient(envelope: der.Envelope, because: str) -> Certificate:
    """Read a certificate with asn1crypto.

    Args:
        envelope: its byte ranges.
        because: why the first reader refused it; kept in the result.

    Raises:
        MalformedInputError: EK_CERTIFICATE_MALFORMED, with the offset of the field.
    """
    key = read_key(envelope.spki)
    not_before, not_after = _read_validity(envelope.validity)
    return Certificate(
        der=envelope.der,
        signed=envelope.signed,
        serial=envelope.serial,
        issuer=envelope.issuer,
        subject=envelope.subject,
        not_before=not_before,
        not_after=not_after,
        key=key.key,
        key_algorithm=key.algorithm,
        spki=key.spki,
        algorithm=read_signature_algorithm(envelope.algorithm),
        signature=envelope.signature,
        extensions=_read_extensions(envelope.extensions),
        lenient_because=because,
    )


def _read_validity(validity: der.Element) -> tuple[datetime, datetime]:
    fields = der.DerCursor(validity.buffer, validity.content, validity.end)
    not_before = _read_time(fields.read_any("notBefore"))
    not_after = _read_time(fields.read_any("notAfter"))
    fields.finish("validity")
    return not_before, not_after


def _read_time(element: der.Element) -> datetime:
    kind = _TIME_TAGS.get(element.tag)
    if kind is None:
        raise der.malformed("not a time", element.start)

    def decode(_: bytes) -> datetime:
        value = kind.load(element.encoded, strict=True).native
        if not isinstance(value, datetime):
            raise ValueError("not a date of our calendar")  # noqa: TRY004 - one error type for all decoders
        return value.astimezone(UTC)

    return _decode("time", element, decode)


def _read_extensions(sequence: der.Element | None) -> ExtensionSet:
    found: dict[str, Any] = {}
    seen: set[str] = set()
    critical = set()
    for extension in der.read_extensions(sequence):
        if extension.oid in seen or len(seen) >= MAX_EXTENSIONS:
            raise der.malformed(f"extension {extension.oid} a second time, or too many", extension.start)
        seen.add(extension.oid)
        if extension.critical:
            critical.add(extension.oid)
        if extension.oid in _DECODERS:
            field, decode = _DECODERS[extension.oid]
            found[field] = decode(extension.value)
    return ExtensionSet(present=frozenset(seen), critical=frozenset(critical), **found)


def _basic_constraints(value: der.Element) -> BasicConstraints:
    def decode(raw: bytes) -> BasicConstraints:
        native = x509.BasicConstraints.load(raw, strict=True).native
        path_length = native["path_len_constraint"]
        if path_length is not None and path_length < 0:
            raise ValueError("negative path length")
        return BasicConstraints(bool(native["ca"]), path_length)

    return _decode("basicConstraints", value, decode)


def _key_usage(value: der.Element) -> KeyUsage:
    def decode(raw: bytes) -> KeyUsage:
        bits = core.BitString.load(raw, strict=True).native
        usage = KeyUsage(0)
        for position, bit in enumerate(bits[: len(KeyUsage)]):
            usage |= KeyUsage(bit << position)
        return usage

    return _decode("keyUsage", value, decode)


def _extended_key_usage(value: der.Element) -> tuple[str, ...]:
    cursor = der.DerCursor(value.buffer, value.content, value.end)
    purposes = cursor.inside(cursor.read(der.SEQUENCE, "extKeyUsage"))
    cursor.finish("extKeyUsage")
    found = []
    while purposes.remaining:
        found.append(der.read_oid(purposes.read(der.OBJECT_IDENTIFIER, "KeyPurposeId")))
    return tuple(found)


def _subject_key_id(value: der.Element) -> bytes:
    cursor = der.DerCursor(value.buffer, value.content, value.end)
    identifier = cursor.read(der.OCTET_STRING, "subjectKeyIdentifier").value
    cursor.finish("subjectKeyIdentifier")
    return identifier


def _authority_key_id(value: der.Element) -> bytes | None:
    def decode(raw: bytes) -> bytes | None:
        identifier: bytes | None = x509.AuthorityKeyIdentifier.load(raw, strict=True)["key_identifier"].native
        return identifier

    return _decode("authorityKeyIdentifier", value, decode)


def _alternative_names(value: der.Element) -> AlternativeNames:
    cursor = der.DerCursor(value.buffer, value.content, value.end)
    names = cursor.inside(cursor.read(der.SEQUENCE, "subjectAltName"))
    cursor.finish("subjectAltName")
    directory: list[tuple[str, str]] = []
    other_names: list[tuple[str, bytes]] = []
    has_directory = False
    while names.remaining:
        name = names.read_any("GeneralName")
        if name.tag == _DIRECTORY_NAME:
            has_directory = True
            directory += attributes(name.value)
        elif name.tag == _OTHER_NAME:
            fields = names.inside(name)
            oid = der.read_oid(fields.read(der.OBJECT_IDENTIFIER, "otherName type"))
            other_names.append((oid, fields.read(_EXPLICIT, "otherName value").value))
            fields.finish("otherName")
    return AlternativeNames(tuple(directory), has_directory, tuple(other_names))


_DECODERS: Final[dict[str, tuple[str, Callable[[der.Element], Any]]]] = {
    model.OID_BASIC_CONSTRAINTS: ("basic_constraints", _basic_constraints),
    model.OID_KEY_USAGE: ("key_usage", _key_usage),
    model.OID_EXTENDED_KEY_USAGE: ("extended_key_usage", _extended_key_usage),
    model.OID_SUBJECT_KEY_ID: ("subject_key_id", _subject_key_id),
    model.OID_AUTHORITY_KEY_ID: ("authority_key_id", _authority_key_id),
    model.OID_SUBJECT_ALT_NAME: ("alternative_names", _alternative_names),
}
