"""NV indices: the name under which a TPM certifies one (TPM 2.0 Library Specification, Part 2, section 13)."""

from __future__ import annotations

import enum
import struct
from typing import Final

from verifier.tcg.algorithms import HashAlg


class NvAttributes(enum.IntFlag):
    """TPMA_NV (Part 2, section 13.4), as far as the ratchet needs it. Bits 7:4 are the index type."""

    AUTHWRITE = 1 << 2
    NT_EXTEND = 4 << 4
    """TPM_NT_EXTEND: the content can only be extended, like a PCR that survives a reset."""
    OWNERREAD = 1 << 17
    AUTHREAD = 1 << 18
    NO_DA = 1 << 25
    WRITTEN = 1 << 29


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
