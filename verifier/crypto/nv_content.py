"""Certificates as they come out of TPMs and tools: bare DER, padded, or in one of three wrappers.

Which wrapper it is follows from the first bytes alone, so that no reading is tried and given up: 0x30 begins DER,
0x10 0x01 a TCG_PCCLIENT_STORED_CERT, five dashes PEM; anything else has to be a TPM2B, whose size decides.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from asn1crypto import pem

from verifier.crypto.der import MAX_PADDED, malformed, trim_padding

_STORED_CERT: Final = b"\x10\x01\x00"
"""TCG_TAG_PCCLIENT_STORED_CERT, TCG_FULL_CERT."""
_FULL_CERT: Final = b"\x10\x02"
_DASHES: Final = b"-----"
_LABELS: Final = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_SEQUENCE: Final = 0x30


class Content(NamedTuple):
    """A certificate without what was around it."""

    der: bytes
    padding: int
    """Bytes of padding (0xff or 0x00) dropped behind it."""
    wrapper: str | None
    """What it was wrapped in, for people."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of it."""
        wrapped = () if self.wrapper is None else (f"the certificate came in {self.wrapper}",)
        return (
            *wrapped,
            *((f"{self.padding} bytes of padding behind the certificate",) if self.padding else ()),
        )


def unwrap(data: bytes) -> Content:
    """The DER certificate in the content of an NV index or a file, with nothing but padding around it.

    Understands a TPM2B (a big-endian 16-bit size; TPM 2.0 Library, part 2, section 10.4), the header with which TCG's
    PC Client Specific Implementation Specification for Conventional BIOS, section 7.4.5, stores certificates, and PEM
    with one certificate. Proves nothing.

    Raises:
        MalformedInputError: EK_CERTIFICATE_MALFORMED: no certificate at the front, too large, or more behind it.
    """
    if len(data) > MAX_PADDED:
        raise malformed(f"{len(data)} bytes; at most {MAX_PADDED} are read", 0)
    if data.startswith(_STORED_CERT):
        return _sized(data, len(_STORED_CERT), "a TCG_PCCLIENT_STORED_CERT", skip=_FULL_CERT)
    if data.startswith(_DASHES):
        return _pem(data)
    if data[:1] != bytes([_SEQUENCE]) and data[2:3] == bytes([_SEQUENCE]):
        return _sized(data, 0, "a TPM2B")
    return Content(*trim_padding(data), None)


def _sized(data: bytes, at: int, wrapper: str, *, skip: bytes = b"") -> Content:
    """What a 16-bit size at `at` announces; behind it only padding."""
    start = at + 2
    size = int.from_bytes(data[at:start], "big")
    if start + size > len(data):
        raise malformed(f"{wrapper} of {size} bytes, of which {len(data) - start} are there", at)
    rest = data[start + size :]
    if rest and (rest[0] not in (0xFF, 0x00) or rest.count(rest[0]) != len(rest)):
        raise malformed(f"{len(rest)} bytes follow {wrapper} that are not padding", start + size)
    inner = data[start : start + size].removeprefix(skip)
    der, padding = trim_padding(inner)
    return Content(der, padding + len(rest), wrapper)


def _pem(data: bytes) -> Content:
    try:
        blocks = [(label, der) for label, _, der in pem.unarmor(data, multiple=True)]
    except (ValueError, TypeError) as error:
        raise malformed(f"PEM: {error}", 0) from error
    found = [der for label, der in blocks if label in _LABELS]
    if len(found) != 1:
        raise malformed(f"PEM with {len(found)} certificates; one is read", 0)
    return Content(*trim_padding(found[0]), "PEM")
