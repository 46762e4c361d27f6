"""Structures of credential activation (TPM 2.0 Library Specification, Part 2, sections 11.4 and 12.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from verifier.tcg.reader import Reader

_MAX_DIGEST: Final = 64


@dataclass(frozen=True, slots=True)
class IdObject:
    """TPMS_ID_OBJECT: the outer HMAC, and the credential encrypted as a TPM2B_DIGEST.

    `encrypted_identity` has no size of its own: its size prefix is inside the encryption.
    """

    integrity_hmac: bytes
    encrypted_identity: bytes

    def marshal(self) -> bytes:
        """TPM2B_ID_OBJECT, size prefix included, big-endian."""
        return sized(sized(self.integrity_hmac) + self.encrypted_identity)


def parse_id_object(tpm2b: bytes) -> IdObject:
    """Parse a TPM2B_ID_OBJECT, size prefix included; no trailing bytes. Raises `MalformedInputError`."""
    reader = Reader(tpm2b, "TPM2B_ID_OBJECT")
    size = reader.u16("size")
    if size != reader.remaining:
        raise reader.error(f"size {size}, but {reader.remaining} bytes follow", offset=0)
    hmac = reader.sized_u16("integrityHMAC", limit=_MAX_DIGEST)
    return IdObject(hmac, reader.take(reader.remaining, "encIdentity"))


def marshal_ecc_point(x: bytes, y: bytes) -> bytes:
    """TPMS_ECC_POINT (Part 2, section 11.2.5.2) of big-endian coordinates."""
    return sized(x) + sized(y)


def sized(content: bytes) -> bytes:
    """A TPM2B: big-endian u16 size and content."""
    return len(content).to_bytes(2, "big") + content
