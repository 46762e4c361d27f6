"""File signatures of IMA and EVM as they stand in `security.ima` (Linux, security/integrity/integrity.h).

`struct signature_v2_hdr`: type, version, hash algorithm, key id (u32, big-endian), size (u16, big-endian), signature.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from verifier.errors import MalformedInputError
from verifier.tcg.ima.entry import DigestType

STRUCTURE: Final = "signature_v2_hdr"
DIGSIG: Final = 0x03
"""EVM_IMA_XATTR_DIGSIG: a signature of the file's content."""
VERITY_DIGSIG: Final = 0x06
"""IMA_VERITY_DIGSIG: a signature of the file's fs-verity digest."""
_HEADER: Final = struct.Struct(">BBBIH")
_VERSIONS: Final = (2, 3)
KERNEL_HASHES: Final = [
    "md4",
    "md5",
    "sha1",
    "rmd160",
    "sha256",
    "sha384",
    "sha512",
    "sha224",
    "rmd128",
    "rmd256",
    "rmd320",
    "wp256",
    "wp384",
    "wp512",
    "tgr128",
    "tgr160",
    "tgr192",
    "sm3",
    "streebog256",
    "streebog512",
    "sha3-256",
    "sha3-384",
    "sha3-512",
]
"""Kernel names by `enum hash_algo` (include/uapi/linux/hash_info.h)."""


class FileSignature(NamedTuple):
    """A signature as it stands. Nothing of it is proven.

    Attributes:
        kind: DIGSIG or VERITY_DIGSIG.
        version: 2: of the digest itself; 3: of a structure that names type and algorithm as well.
        algorithm: kernel name of the hash.
        key_id: 4 bytes: the last of the key's subject key identifier.
        raw: RSA: PKCS #1 v1.5; EC: DER of r and s.
    """

    kind: int
    version: int
    algorithm: str
    key_id: bytes
    raw: bytes

    @property
    def digest_type(self) -> DigestType:
        """What kind of digest it is of."""
        return DigestType.VERITY if self.kind == VERITY_DIGSIG else DigestType.FILE

    def signed(self, digest: bytes) -> bytes | None:
        """What version 3 hashes and signs (`struct ima_file_id`); None in version 2, which signs the digest."""
        if self.version == 2:  # noqa: PLR2004 - the version
            return None
        return bytes((self.kind, KERNEL_HASHES.index(self.algorithm))) + digest


def parse_file_signature(data: bytes) -> FileSignature:
    """Read the signature of an entry's sig field.

    Raises:
        MalformedInputError: it is none, is of version 1 (which no kernel of today checks), or has another size.
    """
    if len(data) < _HEADER.size:
        raise MalformedInputError(STRUCTURE, 0, f"{len(data)} bytes, at least {_HEADER.size} expected")
    kind, version, hash_id, key_id, size = _HEADER.unpack_from(data)
    if kind not in {DIGSIG, VERITY_DIGSIG}:
        raise MalformedInputError(STRUCTURE, 0, f"type 0x{kind:02x} is no signature of a file")
    if version not in _VERSIONS:
        raise MalformedInputError(STRUCTURE, 1, f"version {version}; 2 and 3 are read")
    if hash_id >= len(KERNEL_HASHES):
        raise MalformedInputError(STRUCTURE, 2, f"hash algorithm {hash_id} is none of the kernel's")
    raw = data[_HEADER.size :]
    if len(raw) != size:
        raise MalformedInputError(STRUCTURE, 7, f"{size} bytes of signature are said, {len(raw)} are there")
    return FileSignature(kind, version, KERNEL_HASHES[hash_id], key_id.to_bytes(4, "big"), raw)
