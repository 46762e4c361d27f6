"""Signature databases: PK, KEK, db, dbx, MokList (UEFI 2.10, section 32.4.1, EFI_SIGNATURE_LIST)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from verifier.errors import MalformedInputError
from verifier.tcg.guid import guid_bytes, guid_text
from verifier.tcg.reader import Reader

STRUCTURE: Final = "EFI_SIGNATURE_LIST"
OWNER_SIZE: Final = 16
_LIST_HEADER: Final = 28

SIGNATURE_TYPES: Final = {
    guid_bytes("c1c41626-504c-4092-aca9-41f936934328"): "sha256",
    guid_bytes("826ca512-cf10-4ac9-b187-be01496631bd"): "sha1",
    guid_bytes("0b6e5233-a65c-44c9-9407-d9ab83bfc8bd"): "sha224",
    guid_bytes("ff3e5307-9fd0-48c9-85f1-8ad56c701e01"): "sha384",
    guid_bytes("093e0fae-a6c4-4f50-9f1b-d41e2b89c19a"): "sha512",
    guid_bytes("a5c059a1-94e4-4aa7-87b5-ab155c2bf072"): "x509",
    guid_bytes("3bd2a492-96c0-4079-b420-fcf98ef103ed"): "x509-sha256",
    guid_bytes("7076876e-80c2-4ee6-aad2-28b349a6865b"): "x509-sha384",
    guid_bytes("446dbf63-2502-4cda-bcfa-2465d2b0fe9d"): "x509-sha512",
    guid_bytes("3c5766e8-269c-4e34-aa14-ed776e85b3b6"): "rsa2048",
    guid_bytes("e2b36190-879b-4a3d-ad8d-f2e7bba32784"): "rsa2048-sha256",
    guid_bytes("67f8444f-8743-48f1-a328-1eaab8736080"): "rsa2048-sha1",
    guid_bytes("4aafd29d-68df-49ee-8aa9-347d375665a7"): "pkcs7",
}
"""Name of each signature type; others are shown by their GUID."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One entry (EFI_SIGNATURE_DATA): who owns it, of what type, and its bytes: a digest or DER."""

    kind: str
    owner: bytes
    data: bytes


def signature_entries(data: bytes) -> list[tuple[str, list[bytes]]]:
    """Each list of a signature database: the type's name, and its entries, owner GUID first. Little-endian.

    Raises:
        MalformedInputError: sizes that do not add up; work and memory are bounded by `data`.
    """
    lists: list[tuple[str, list[bytes]]] = []
    reader = Reader(data, STRUCTURE)
    while reader.remaining:
        start = reader.offset
        kind = reader.take(16, "SignatureType")
        size, header, entry = reader.u32le("SignatureListSize"), reader.u32le(), reader.u32le("SignatureSize")
        body = size - _LIST_HEADER - header
        if body < 0 or entry <= OWNER_SIZE or body % entry:
            raise MalformedInputError(
                STRUCTURE, start + 16, f"a list of {size} bytes with entries of {entry}"
            )
        reader.take(header, "SignatureHeader")
        content = reader.take(body, "Signatures")
        name = SIGNATURE_TYPES.get(kind) or guid_text(kind)
        lists.append((name, [content[at : at + entry] for at in range(0, body, entry)]))
    return lists


def parse_signature_lists(data: bytes) -> tuple[Signature, ...]:
    """Every entry of a signature database, in order. Raises as `signature_entries`."""
    return tuple(
        Signature(kind, entry[:OWNER_SIZE], entry[OWNER_SIZE:])
        for kind, entries in signature_entries(data)
        for entry in entries
    )


def parse_signature(data: bytes) -> tuple[bytes, bytes]:
    """EFI_SIGNATURE_DATA as EV_EFI_VARIABLE_AUTHORITY carries it: owner GUID and DER or digest.

    Raises:
        MalformedInputError: shorter than a GUID.
    """
    reader = Reader(data, "EFI_SIGNATURE_DATA")
    owner = reader.take(OWNER_SIZE, "SignatureOwner")
    return owner, reader.take(reader.remaining, "SignatureData")


SVN_COMPONENTS: Final = {
    guid_bytes("9d132b61-59d5-4388-ab1c-185c3cb2eb92"): "bootmgfw.efi",
    guid_bytes("e8f82e9d-e127-4158-a488-4c18abe2f284"): "cdboot.efi",
    guid_bytes("c999cac2-7ffe-496f-8127-9e2a8a535976"): "wdsmgfw.efi",
}
"""Boot managers of Windows that refuse to run below a security version that dbx holds for them."""
_SVN_SIZE: Final = 32
_SVN_HEAD: Final = b"\x01"
_SVN_TAIL: Final = bytes(11)


class SecurityVersion(NamedTuple):
    """Lowest version of a Windows boot manager that may run."""

    component: str
    major: int
    minor: int


def parse_security_version(entry: bytes) -> SecurityVersion | None:
    """What a `sha256` entry of dbx says if it is none: a version instead of a digest; None for digests.

    Microsoft keeps minimum versions among the digests: 01, the component's GUID, minor and major version (u16,
    little-endian), 11 zero bytes. No digest has that form but by a chance of 2**-224.
    """
    if len(entry) != _SVN_SIZE or not entry.startswith(_SVN_HEAD) or not entry.endswith(_SVN_TAIL):
        return None
    component = SVN_COMPONENTS.get(entry[1:17])
    if component is None:
        return None
    minor, major = (int.from_bytes(entry[at : at + 2], "little") for at in (17, 19))
    return SecurityVersion(component, major, minor)
