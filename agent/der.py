"""Just enough DER to tell where a certificate ends and which key is in it. Nothing is verified here."""

from __future__ import annotations

from typing import Final

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_BIT_STRING: Final = 0x03
_VERSION: Final = 0xA0
_LONG_FORM: Final = 0x80
_MAX_LENGTH_BYTES: Final = 3
_UNCOMPRESSED: Final = 0x04
_STORED_CERT: Final = b"\x10\x01\x00"
_FULL_CERT: Final = b"\x10\x02"


class DerError(ValueError):
    """Bytes that are not the DER structure they should be."""


def _element(data: bytes, offset: int) -> tuple[int, int, int]:
    """Tag, start and end of the content of the element at `offset`."""
    if offset + 2 > len(data):
        raise DerError(f"no element at byte {offset}")
    tag, length, start = data[offset], data[offset + 1], offset + 2
    if length & _LONG_FORM:
        count = length & ~_LONG_FORM
        if not 0 < count <= _MAX_LENGTH_BYTES or start + count > len(data):
            raise DerError(f"unusable length at byte {offset + 1}")
        length = int.from_bytes(data[start : start + count])
        start += count
    if start + length > len(data):
        raise DerError(
            f"element at byte {offset} ends at {start + length}, past the data's {len(data)} bytes"
        )
    return tag, start, start + length


def _expect(data: bytes, offset: int, tag: int) -> tuple[int, int]:
    found, start, end = _element(data, offset)
    if found != tag:
        raise DerError(f"tag {found:#04x} at byte {offset}, {tag:#04x} expected")
    return start, end


def trim(data: bytes) -> bytes:
    """The certificate in an NV index, which is often longer and padded with 0xff.

    Some makers write a size before it (TPM2B), or the header by which TPMs 1.2 stored theirs (TCG PC Client Specific
    Implementation Specification for Conventional BIOS, section 7.4.5).
    """
    start = 0
    if data.startswith(_STORED_CERT):
        start = len(_STORED_CERT) + 2
        start += len(_FULL_CERT) if data[start:].startswith(_FULL_CERT) else 0
    elif data[:1] != bytes([_SEQUENCE]) and data[2:3] == bytes([_SEQUENCE]):
        start = 2
    _, end = _expect(data, start, _SEQUENCE)
    return data[start:end]


def split(data: bytes) -> tuple[list[bytes], int]:
    """Certificates one after another, and the offset where they end. Padding (0x00, 0xff) between is skipped."""
    found: list[bytes] = []
    offset = 0
    while offset < len(data):
        if data[offset] in {0x00, 0xFF}:
            offset += 1
            continue
        try:
            _, end = _expect(data, offset, _SEQUENCE)
        except DerError:
            return found, offset
        found.append(data[offset:end])
        offset = end
    return found, len(data)


def subject_key(certificate: bytes) -> tuple[bytes, ...]:
    """Key of an X.509 certificate: (RSA modulus,) or (x, y), without leading zeros.

    The algorithm identifier is not looked at: vendors use rsaEncryption and id-RSAES-OAEP for the same EK
    (RFC 5280, section 4.1; RFC 8017, A.1.1; SEC 1, section 2.3.3).
    """
    offset, _ = _expect(certificate, 0, _SEQUENCE)
    offset, _ = _expect(certificate, offset, _SEQUENCE)
    tag, _, end = _element(certificate, offset)
    if tag == _VERSION:
        offset = end
    for _ in ("serial number", "signature", "issuer", "validity", "subject"):
        offset = _element(certificate, offset)[2]
    offset, _ = _expect(certificate, offset, _SEQUENCE)
    offset = _element(certificate, offset)[2]  # algorithm
    start, end = _expect(certificate, offset, _BIT_STRING)
    key = certificate[start + 1 : end]
    if key[:1] == bytes([_UNCOMPRESSED]) and len(key) % 2 == 1:
        half = len(key) // 2
        return key[1 : 1 + half].lstrip(b"\0"), key[1 + half :].lstrip(b"\0")
    inner, _ = _expect(key, 0, _SEQUENCE)
    start, end = _expect(key, inner, _INTEGER)
    return (key[start:end].lstrip(b"\0"),)
