"""Just enough DER (ITU-T X.690) to find the parts of an X.509 certificate without interpreting them.

What is signed is a byte range, so that range must be cut from the bytes as they came. Both certificate
readers work on the same cut; neither may disagree with the other about what the signature covers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from verifier.errors import MalformedInputError
from verifier.reasons import Reason

STRUCTURE: Final = "Certificate"
MAX_CERTIFICATE: Final = 16 * 1024
"""Bytes. An EK certificate with a 4096-bit key is about 2 KB; NV indices hold a few KB at most."""
MAX_PADDED: Final = 64 * 1024

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31
_VERSION: Final = 0xA0
_UNIQUE_IDS: Final = (0x81, 0x82, 0xA1, 0xA2)
_EXTENSIONS: Final = 0xA3
_V3: Final = b"\x02"

_LONG_FORM: Final = 0x80
_MAX_LENGTH_BYTES: Final = 4
_MAX_OID: Final = 64
_HIGH_TAG: Final = 0x1F
_PADDING: Final = (0xFF, 0x00)


def malformed(detail: str, offset: int, structure: str = STRUCTURE) -> MalformedInputError:
    """The one error of a certificate that cannot be read. The offset counts from the start of `structure`."""
    return MalformedInputError(structure, offset, detail, reason=Reason.EK_CERTIFICATE_MALFORMED)


class Element(NamedTuple):
    """One tag-length-value of a buffer: `start` of the tag, `content` after the length, `end`. In bytes.

    A tuple, because a certificate has a hundred of them and a frozen dataclass costs four times as much.
    """

    buffer: bytes
    tag: int
    start: int
    content: int
    end: int

    @property
    def value(self) -> bytes:
        """Content octets."""
        return self.buffer[self.content : self.end]

    @property
    def encoded(self) -> bytes:
        """Tag, length and content, as they came."""
        return self.buffer[self.start : self.end]


class DerCursor:
    """Reads elements of a range in order. Definite, minimal lengths only; one-byte tags only."""

    __slots__ = ("_buffer", "_end", "offset", "structure")

    def __init__(
        self, buffer: bytes, start: int = 0, end: int | None = None, *, structure: str = STRUCTURE
    ) -> None:
        self._buffer = buffer
        self.offset = start
        self._end = len(buffer) if end is None else end
        self.structure = structure

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return self._end - self.offset

    def error(self, detail: str, offset: int) -> MalformedInputError:
        """What to raise when the bytes at this offset do not fit."""
        return malformed(detail, offset, self.structure)

    def peek(self) -> int:
        """Tag of the next element, or -1 at the end."""
        return self._buffer[self.offset] if self.offset < self._end else -1

    def read(self, tag: int, what: str) -> Element:
        """The next element, which must have this tag."""
        element = self.read_any(what)
        if element.tag != tag:
            raise self.error(f"{what}: tag 0x{element.tag:02x} where 0x{tag:02x} must be", element.start)
        return element

    def read_any(self, what: str) -> Element:
        """The next element, whatever it is."""
        start = self.offset
        if self.remaining < 2:  # noqa: PLR2004 - one byte of tag, one of length
            raise self.error(f"{what} is missing or cut off", start)
        tag = self._buffer[start]
        if tag & _HIGH_TAG == _HIGH_TAG:
            raise self.error(f"{what}: tag numbers above 30 do not occur in a certificate", start)
        length, content = self._length(what)
        if length > self._end - content:
            raise self.error(f"{what}: {length} bytes announced, {self._end - content} are there", start)
        self.offset = content + length
        return Element(self._buffer, tag, start, content, content + length)

    def inside(self, element: Element) -> DerCursor:
        """A cursor over the content of a constructed element."""
        return DerCursor(self._buffer, element.content, element.end, structure=self.structure)

    def finish(self, what: str) -> None:
        """Nothing may follow."""
        if self.remaining:
            raise self.error(f"{self.remaining} bytes follow the last field of {what}", self.offset)

    def _length(self, what: str) -> tuple[int, int]:
        at = self.offset + 1
        first = self._buffer[at]
        if first < _LONG_FORM:
            return first, at + 1
        count = first & 0x7F
        if not 1 <= count <= _MAX_LENGTH_BYTES or at + 1 + count > self._end:
            raise self.error(f"{what}: length is indefinite, oversized or cut off", at)
        length = int.from_bytes(self._buffer[at + 1 : at + 1 + count], "big")
        if length < _LONG_FORM or length >> (8 * (count - 1)) == 0:
            raise self.error(f"{what}: length is not in its shortest form", at)
        return length, at + 1 + count


@functools.lru_cache(maxsize=512)
def _dotted(content: bytes) -> str | None:
    """Dotted form of the content of an OBJECT IDENTIFIER (X.690, section 8.19), or None."""
    if not content or content[-1] & 0x80:
        return None
    arcs: list[int] = []
    value, fresh = 0, True
    for byte in content:
        if fresh and byte == 0x80:  # noqa: PLR2004 - an arc in more bytes than it needs
            return None
        value = value << 7 | byte & 0x7F
        fresh = not byte & 0x80
        if fresh:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def read_oid(element: Element, structure: str = STRUCTURE) -> str:
    """Dotted form of an OBJECT IDENTIFIER. Raises `MalformedInputError` where it is none.

    Written here because asn1crypto reads several encodings as one identifier.
    """
    content = element.value
    dotted = _dotted(content) if len(content) <= _MAX_OID else None
    if dotted is None:
        raise malformed("not an object identifier", element.start, structure)
    return dotted


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields of a certificate as byte ranges, uninterpreted (RFC 5280, section 4.1).

    Proves only that the outer structure is DER and that the two signature algorithm fields agree.
    """

    der: bytes
    signed: bytes
    """TBSCertificate: what the signature covers."""
    serial: int
    algorithm: bytes
    """AlgorithmIdentifier of the signature."""
    issuer: bytes
    validity: Element
    subject: bytes
    spki: Element
    extensions: Element | None
    """SEQUENCE OF Extension."""
    signature: bytes


class RawExtension(NamedTuple):
    """One extension: dotted OID, critical flag, the OCTET STRING that holds its value, where it begins."""

    oid: str
    critical: bool
    value: Element
    start: int


def read_extensions(sequence: Element | None) -> Iterator[RawExtension]:
    """The extensions of a certificate in order, repetitions included.

    Raises:
        MalformedInputError: where one does not parse, when it is reached.
    """
    if sequence is None:
        return
    cursor = DerCursor(sequence.buffer, sequence.content, sequence.end)
    while cursor.remaining:
        outer = cursor.read(SEQUENCE, "Extension")
        fields = cursor.inside(outer)
        oid = read_oid(fields.read(OBJECT_IDENTIFIER, "extnID"))
        critical = False
        if fields.peek() == BOOLEAN:
            flag = fields.read(BOOLEAN, "critical")
            if len(flag.value) != 1:
                raise malformed("critical is not one byte", flag.start)
            # BER has 255 ways to say true; each of them means critical here.
            critical = flag.value != b"\x00"
        value = fields.read(OCTET_STRING, "extnValue")
        fields.finish("Extension")
        yield RawExtension(oid, critical, value, outer.start)


def trim_padding(data: bytes) -> tuple[bytes, int]:
    """Cut what an NV index holds behind the certificate (0xff as erased, or 0x00).

    Returns:
        The DER, and how many bytes of padding were dropped.

    Raises:
        MalformedInputError: no certificate at the front, too large, or other bytes than padding behind it.
    """
    if len(data) > MAX_PADDED:
        raise malformed(f"{len(data)} bytes; at most {MAX_PADDED} are read", 0)
    if data and data[0] != SEQUENCE:
        raise malformed(f"it begins with 0x{data[0]:02x}, where a certificate has 0x{SEQUENCE:02x}", 0)
    end = DerCursor(data).read(SEQUENCE, "Certificate").end
    if end > MAX_CERTIFICATE:
        raise malformed(f"{end} bytes of DER; at most {MAX_CERTIFICATE} are read", 0)
    padding = data[end:]
    if padding and (padding[0] not in _PADDING or padding.count(padding[0]) != len(padding)):
        raise malformed(f"{len(padding)} bytes follow the certificate that are not padding", end)
    return data[:end], len(padding)


def open_envelope(der: bytes) -> Envelope:
    """Cut a DER certificate into its fields.

    Raises:
        MalformedInputError: EK_CERTIFICATE_MALFORMED, with the offset of what does not fit.
    """
    outer = DerCursor(der)
    certificate = outer.read(SEQUENCE, "Certificate")
    outer.finish("Certificate")
    fields = outer.inside(certificate)
    signed = fields.read(SEQUENCE, "tbsCertificate")
    algorithm = fields.read(SEQUENCE, "signatureAlgorithm")
    signature = fields.read(BIT_STRING, "signatureValue")
    fields.finish("Certificate")
    if signature.value[:1] != b"\x00":
        raise malformed("signatureValue does not fill whole bytes", signature.content)
    tbs = fields.inside(signed)
    if (
        tbs.peek() != _VERSION
        or fields.inside(tbs.read(_VERSION, "version")).read(INTEGER, "version").value != _V3
    ):
        raise malformed("not an X.509 version 3 certificate", signed.content)
    serial = tbs.read(INTEGER, "serialNumber")
    inner = tbs.read(SEQUENCE, "signature")
    if inner.encoded != algorithm.encoded:
        raise malformed("the signed signature algorithm is not the one outside", algorithm.start)
    issuer = tbs.read(SEQUENCE, "issuer")
    validity = tbs.read(SEQUENCE, "validity")
    subject = tbs.read(SEQUENCE, "subject")
    spki = tbs.read(SEQUENCE, "subjectPublicKeyInfo")
    while tbs.peek() in _UNIQUE_IDS:
        tbs.read_any("uniqueID")
    extensions = None
    if tbs.remaining:
        wrapper = tbs.inside(tbs.read(_EXTENSIONS, "extensions"))
        extensions = wrapper.read(SEQUENCE, "extensions")
        wrapper.finish("extensions")
    tbs.finish("tbsCertificate")
    return Envelope(
        der=der,
        signed=signed.encoded,
        serial=int.from_bytes(serial.value, "big", signed=True),
        algorithm=algorithm.encoded,
        issuer=issuer.encoded,
        validity=validity,
        subject=subject.encoded,
        spki=spki,
        extensions=extensions,
        signature=signature.value[1:],
    )
