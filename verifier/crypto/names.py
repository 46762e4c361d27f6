"""X.501 names: compared as RFC 5280, section 7.1 says, and shown to people.

Comparing the encoded bytes is not enough: AMD's and STMicroelectronics' intermediates name their root in
another string type (PrintableString for UTF8String) than the root names itself.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Final

from verifier.crypto import der

MAX_ATTRIBUTES: Final = 64
_NAME: Final = "Name"
_T61_STRING: Final = 0x14
_ENCODINGS: Final = {
    0x04: "utf-8",
    0x0C: "utf-8",
    0x12: "utf-8",
    0x13: "utf-8",
    0x14: "utf-8",
    0x16: "utf-8",
    0x17: "utf-8",
    0x18: "utf-8",
    0x1A: "utf-8",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
"""Types of attribute values that are text, by tag: those `cryptography` reads as text. The ASCII types are read as
UTF-8, which some makers put into them."""

_SHORT: Final = {
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
    "2.23.133.2.1": "tpmManufacturer",
    "2.23.133.2.2": "tpmModel",
    "2.23.133.2.3": "tpmVersion",
}
_MAX_SHOWN: Final = 400


def _text(element: der.Element) -> str | None:
    encoding = _ENCODINGS.get(element.tag)
    if encoding is None:
        return None
    try:
        return element.value.decode(encoding)
    except UnicodeDecodeError as error:
        if element.tag == _T61_STRING:
            return element.value.decode("latin-1")  # what T61String holds in practice when not UTF-8
        raise der.malformed(f"text is not {encoding}", element.content, _NAME) from error


def _relative_names(name: bytes) -> list[list[tuple[str, der.Element]]]:
    """Attributes of a Name by RDN, in the order they came. A SET out of DER order is read all the same."""
    outer = der.DerCursor(name, structure=_NAME)
    sequence = outer.inside(outer.read(der.SEQUENCE, "Name"))
    outer.finish("Name")
    rdns: list[list[tuple[str, der.Element]]] = []
    count = 0
    while sequence.remaining:
        members = sequence.inside(sequence.read(der.SET, "RelativeDistinguishedName"))
        rdn: list[tuple[str, der.Element]] = []
        while members.remaining:
            count += 1
            if count > MAX_ATTRIBUTES:
                raise members.error(f"more than {MAX_ATTRIBUTES} attributes", members.offset)
            pair = members.inside(members.read(der.SEQUENCE, "AttributeTypeAndValue"))
            oid = der.read_oid(pair.read(der.OBJECT_IDENTIFIER, "attribute type"), _NAME)
            rdn.append((oid, pair.read_any("attribute value")))
            pair.finish("AttributeTypeAndValue")
        rdns.append(rdn)
    return rdns


def attributes(name: bytes) -> tuple[tuple[str, str], ...]:
    """(dotted OID, text) of every attribute of a Name that is text, in order, across all its RDNs."""
    found = []
    for rdn in _relative_names(name):
        for oid, element in rdn:
            text = _text(element)
            if text is not None:
                found.append((oid, text))
    return tuple(found)


def _prepared(element: der.Element) -> bytes:
    text = _text(element)
    if text is None:
        return b"\x00" + element.encoded
    return b"\x01" + " ".join(unicodedata.normalize("NFKC", text).casefold().split()).encode()


@functools.lru_cache(maxsize=256)  # a hostile name is up to 16 KB
def canonical_name(name: bytes) -> bytes:
    """A form of a Name in which equal names are equal bytes (case, spaces, string type, order in an RDN)."""
    parts = []
    for rdn in _relative_names(name):
        members = sorted(oid.encode() + _prepared(element) for oid, element in rdn)
        parts.append(b"".join(len(member).to_bytes(4, "big") + member for member in members))
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@functools.lru_cache(maxsize=256)
def display_name(name: bytes) -> str:
    """One line for people, most specific attribute first; control characters and excess length removed."""
    shown = [
        "+".join(f"{_SHORT.get(oid, oid)}={_text(element) or element.encoded.hex()}" for oid, element in rdn)
        for rdn in reversed(_relative_names(name))
    ]
    line = ", ".join(shown)
    clean = "".join(char if char.isprintable() else "\ufffd" for char in line)
    return clean if len(clean) <= _MAX_SHOWN else clean[:_MAX_SHOWN] + "..."
