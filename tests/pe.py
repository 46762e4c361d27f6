"""PE images and Authenticode signatures made by hand, small enough to keep, well-formed enough for real firmware to run.

`tests/vectors/predict/README.md` says which of these shapes were booted on OVMF and what it measured.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding

from tests.pki import integer, oid, seq, tlv

NOTHING = bytes.fromhex("48b80e00000000000080c3")
"""x86-64: mov rax, EFI_NOT_FOUND; ret. An EFI application after which firmware tries the next boot option."""
FILE_ALIGNMENT = 0x200
SECTION_ALIGNMENT = 0x1000
LFANEW = 0x40

DIGESTS = {"sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1", "sha384": "2.16.840.1.101.3.4.2.2"}
RSA, SIGNED_DATA = "1.2.840.113549.1.1.1", "1.2.840.113549.1.7.2"
CONTENT_TYPE, MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
SPC_INDIRECT_DATA, SPC_PE_IMAGE_DATA = "1.3.6.1.4.1.311.2.1.4", "1.3.6.1.4.1.311.2.1.15"


@dataclass(frozen=True)
class Part:
    """A section to be: its content, its size in memory (that of the content by default), a hole before it in the file."""

    name: str
    content: bytes = b""
    virtual_size: int | None = None
    gap: int = 0


@dataclass(frozen=True)
class Shape:
    """Everything that makes one image differ from another."""

    parts: Sequence[Part] = (Part(".text", NOTHING.ljust(FILE_ALIGNMENT, b"\xcc")),)
    file_order: Sequence[int] | None = None
    """Order of the sections' contents in the file; that of the table by default."""
    trailing: bytes = b""
    directories: int = 16
    checksum: int = 0
    lfanew: int = LFANEW
    pe32: bool = False
    long_names: Sequence[str] = field(default=())
    """Names for the string table; a section called `/0`, `/1` ... gets the offset of its name."""


def build(shape: Shape = Shape()) -> bytes:
    """The bytes of an unsigned image."""
    optional = (96 if shape.pe32 else 112) + 8 * shape.directories
    table = shape.lfanew + 24 + optional
    headers = _aligned(table + 40 * len(shape.parts))
    strings, offsets = b"", {}
    for index, name in enumerate(shape.long_names):
        offsets[f"/{index}"] = 4 + len(strings)
        strings += name.encode() + b"\0"
    order = list(shape.file_order or range(len(shape.parts)))
    raw_offsets, body = {}, b""
    for index in order:
        part = shape.parts[index]
        body += bytes(part.gap)
        raw_offsets[index] = headers + len(body)
        body += part.content + bytes(-len(part.content) % FILE_ALIGNMENT)
    string_table = struct.pack("<I", 4 + len(strings)) + strings if shape.long_names else b""
    symbols = headers + len(body) if shape.long_names else 0
    address, rows = SECTION_ALIGNMENT, b""
    for index, part in enumerate(shape.parts):
        size = part.virtual_size if part.virtual_size is not None else len(part.content)
        raw = len(part.content) + -len(part.content) % FILE_ALIGNMENT
        name = f"/{offsets[part.name]}" if part.name in offsets else part.name
        rows += struct.pack(
            "<8sIIIIIIHHI",
            name.encode().ljust(8, b"\0"),
            size,
            address,
            raw,
            raw_offsets[index] if raw else 0,
            0,
            0,
            0,
            0,
            0x60000020 if index == 0 else 0x40000040,
        )
        address += -(-max(size, 1) // SECTION_ALIGNMENT) * SECTION_ALIGNMENT
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", shape.lfanew)
    head = head.ljust(shape.lfanew, b"\0") + b"PE\0\0"
    head += struct.pack("<HHIIIHH", 0x8664, len(shape.parts), 0, symbols, 0, optional, 0x22)
    head += _optional_header(shape, headers, address)
    return (head + rows).ljust(headers, b"\0") + body + string_table + shape.trailing


def _optional_header(shape: Shape, headers: int, image_size: int) -> bytes:
    first = struct.pack(
        "<HBBIIIII", 0x10B if shape.pe32 else 0x20B, 14, 0, FILE_ALIGNMENT, 0, 0, 0x1000, 0x1000
    )
    base = struct.pack("<II", 0x2000, 0) if shape.pe32 else struct.pack("<Q", 0)
    rest = struct.pack(
        "<IIHHHHHHIIIIHH",
        SECTION_ALIGNMENT,
        FILE_ALIGNMENT,
        0,
        0,
        1,  # major image version: systemd-stub asks kernels for 1
        1,
        0,
        0,
        0,
        image_size,
        headers,
        shape.checksum,
        10,  # EFI application
        0,
    )
    sizes = struct.pack("<IIII" if shape.pe32 else "<QQQQ", 0, 0, 0, 0)
    counts = struct.pack("<II", 0, shape.directories)
    return first + base + rest + sizes + counts + bytes(8 * shape.directories)


def _aligned(size: int) -> int:
    return -(-size // FILE_ALIGNMENT) * FILE_ALIGNMENT


@dataclass(frozen=True)
class Signer:
    """A key with its certificate, and the certificates that go along in the signature."""

    key: object
    certificate: object
    along: Sequence[object] = ()


def padded(image: bytes) -> bytes:
    """As signing tools leave an image before they sign it."""
    return image + bytes(-len(image) % 8)


def sign(image: bytes, signer: Signer, alg: str = "sha256", *, stated: bytes | None = None) -> bytes:
    """Append an Authenticode signature; `stated` replaces the digest it speaks of."""
    image = padded(image)
    pkcs7 = _pkcs7(stated if stated is not None else reference_digest(image, alg), signer, alg)
    entry = struct.pack("<IHH", 8 + len(pkcs7), 0x0200, 0x0002) + pkcs7
    entry += bytes(-len(entry) % 8)
    offset, size = certificate_table(image)
    start = offset if size else len(image)
    at = directory_entry(image)
    return image[:at] + struct.pack("<II", start, size + len(entry)) + image[at + 8 :] + entry


def directory_entry(image: bytes) -> int:
    """Offset of the Certificate Table's directory entry."""
    optional = struct.unpack_from("<I", image, 0x3C)[0] + 24
    pe32 = struct.unpack_from("<H", image, optional)[0] == 0x10B
    return optional + (96 if pe32 else 112) + 32


def certificate_table(image: bytes) -> tuple[int, int]:
    """Offset and size, as the image has them."""
    return struct.unpack_from("<II", image, directory_entry(image))


def reference_digest(image: bytes, alg: str = "sha256") -> bytes:
    """The Authenticode digest of an image without holes, written down the shortest way: all bytes but three ranges."""
    optional = struct.unpack_from("<I", image, 0x3C)[0] + 24
    checksum, entry = optional + 64, directory_entry(image)
    end = len(image) - certificate_table(image)[1]
    covered = image[:checksum] + image[checksum + 4 : entry] + image[entry + 8 : end]
    return hashlib.new(alg, covered).digest()


def _pkcs7(digest: bytes, signer: Signer, alg: str) -> bytes:
    """PKCS#7 as Windows Authenticode has it, byte by byte: nothing of the reader under test takes part."""
    algorithm = seq(oid(DIGESTS[alg]), tlv(0x05))
    spc = seq(oid(SPC_PE_IMAGE_DATA), seq(tlv(0x03, b"\0"), tlv(0xA0, tlv(0xA2, tlv(0x80)))))
    indirect = spc + seq(algorithm, tlv(0x04, digest))
    attributes = b"".join(
        sorted(
            (
                seq(oid(CONTENT_TYPE), tlv(0x31, oid(SPC_INDIRECT_DATA))),
                seq(oid(MESSAGE_DIGEST), tlv(0x31, tlv(0x04, hashlib.new(alg, indirect).digest()))),
            )
        )
    )
    signature = signer.key.sign(tlv(0x31, attributes), padding.PKCS1v15(), getattr(hashes, alg.upper())())
    own = signer.certificate
    info = seq(
        integer(1),
        seq(own.issuer.public_bytes(), integer(own.serial_number)),
        algorithm,
        tlv(0xA0, attributes),
        seq(oid(RSA), tlv(0x05)),
        tlv(0x04, signature),
    )
    signed = seq(
        integer(1),
        tlv(0x31, algorithm),
        seq(oid(SPC_INDIRECT_DATA), tlv(0xA0, seq(indirect))),
        tlv(0xA0, *(each.public_bytes(Encoding.DER) for each in (own, *signer.along))),
        tlv(0x31, info),
    )
    return seq(oid(SIGNED_DATA), tlv(0xA0, signed))
