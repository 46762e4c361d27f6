"""NV indices: the name under which a TPM certifies one (TPM 2.0 Library Specification, Part 2, section 13)."""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from verifier.tcg.algorithms import HASH_BY_ID, HashAlg
from verifier.tcg.reader import Reader


class NvAttributes(enum.IntFlag):
    """TPMA_NV (Part 2, section 13.4), as far as it is needed here. Bits 7:4 are the index type."""

    AUTHWRITE = 1 << 2
    NT_EXTEND = 4 << 4
    """TPM_NT_EXTEND: the content can only be extended, like a PCR that survives a reset."""
    OWNERREAD = 1 << 17
    AUTHREAD = 1 << 18
    NO_DA = 1 << 25
    WRITTEN = 1 << 29


_STRUCTURE: Final = "TPMS_NV_PUBLIC"
_TYPE: Final = 0xF << 4
_MAX_DIGEST: Final = 64
_HEAD: Final = struct.Struct(">IHI")
_SIZED: Final = struct.Struct(">H")


def nv_name(
    index: int, attributes: int, size: int, *, auth_policy: bytes = b"", name_alg: HashAlg = HashAlg.SHA256
) -> bytes:
    """The Name of an index: its name algorithm and the digest of its TPMS_NV_PUBLIC (Part 1, section 16).

    It covers handle, attributes, policy and size, so an index that can be written freely has another name than one
    that can only be extended. It does not cover the content.
    """
    public = _HEAD.pack(index, name_alg.tpm_id, attributes) + _SIZED.pack(len(auth_policy)) + auth_policy
    return _SIZED.pack(name_alg.tpm_id) + name_alg.digest(public + _SIZED.pack(size))


class NvPublic(NamedTuple):
    """TPMS_NV_PUBLIC (Part 2, section 13.5). It is the sender's word until its Name is one that a TPM has certified.

    Attributes:
        handle: NV index.
        name_alg: of the Name, and of an extend index's content.
        attributes: TPMA_NV.
        auth_policy: digest of the policy that may stand for its authorisation, or empty.
        size: of the content, in bytes.
        name: the Name these fields have.
    """

    handle: int
    name_alg: HashAlg
    attributes: int
    auth_policy: bytes
    size: int
    name: bytes

    @property
    def extends(self) -> bool:
        """Whether the index can only be extended, and was."""
        return self.attributes & _TYPE == NvAttributes.NT_EXTEND and bool(
            self.attributes & NvAttributes.WRITTEN
        )


def parse_nv_public(data: bytes) -> NvPublic:
    """Parse a TPMS_NV_PUBLIC, big-endian, without a size before it.

    Raises:
        MalformedInputError: not such a structure, or of an unknown name algorithm.
    """
    reader = Reader(data, _STRUCTURE)
    index, algorithm, attributes = reader.u32("nvIndex"), reader.u16("nameAlg"), reader.u32("attributes")
    policy, size = reader.sized_u16("authPolicy", limit=_MAX_DIGEST), reader.u16("dataSize")
    reader.finish()
    name_alg = HASH_BY_ID.get(algorithm)
    if name_alg is None or name_alg.new is None:
        raise reader.error(f"name algorithm 0x{algorithm:04x} is not known", offset=4)
    name = nv_name(index, attributes, size, auth_policy=policy, name_alg=name_alg)
    return NvPublic(index, name_alg, attributes, policy, size, name)
