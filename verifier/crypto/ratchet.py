"""The NV ratchet: an index that only grows, by values only this verifier can make (docs/adr/0008-ratchet.md)."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from msgspec import Struct

from verifier.crypto.mac import Mac
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.nv import NvAttributes, nv_name

VALUE_SIZE: Final = 32
INDEX_BASE: Final = 0x01810000
"""In the owner's range (TCG Registry of Reserved TPM 2.0 Handles: 0x01800000 to 0x01BFFFFF)."""
ATTRIBUTES: Final = (
    NvAttributes.AUTHWRITE
    | NvAttributes.NT_EXTEND
    | NvAttributes.OWNERREAD
    | NvAttributes.AUTHREAD
    | NvAttributes.NO_DA
)
_WRITTEN: Final = int(ATTRIBUTES | NvAttributes.WRITTEN)
_INDEX_LABEL: Final = b"vtpm-attest ratchet index v1\x00"
_VALUE_LABEL: Final = b"vtpm-attest ratchet value v1\x00"


class RatchetChain(Struct, frozen=True):
    """What this verifier hands out to one attester, and where the attester keeps it.

    A value is bound to the content it may be extended into and to the nonce it came with. So whoever shows a content,
    and names the step, the content before it and that nonce, proves that this verifier led there, without the verifier
    remembering what it gave to whom; and two copies of a TPM, which never get one nonce, never get one value.

    Attributes:
        key: 32 bytes only the verifier has; replicas share it.
        attester_id: whose.
    """

    key: bytes
    attester_id: str

    @property
    def index(self) -> int:
        """NV index. One per attester id, so that several verifiers, and tenants of one, can have theirs in one TPM."""
        return _place_of(self.attester_id)[0]

    @property
    def index_name(self) -> bytes:
        """Name the index has once something was extended into it."""
        return _place_of(self.attester_id)[1]

    def value(self, step: int, base: bytes, nonce: bytes) -> bytes:
        """The 32 bytes handed out with `nonce` as number `step` (from 1, u64) to a TPM whose index holds `base`."""
        # All but the id have a fixed length, so no part can be read as another.
        return _values(self.key).digest(step.to_bytes(8, "big") + base + nonce + self.attester_id.encode())

    def following(self, step: int, base: bytes, nonce: bytes) -> bytes:
        """What the index holds after that value was extended into it."""
        return extended(base, self.value(step, base, nonce))


@lru_cache(maxsize=8192)
def _place_of(attester_id: str) -> tuple[int, bytes]:
    """The index, and its Name once something was extended into it."""
    mark = hashlib.sha256(_INDEX_LABEL + attester_id.encode()).digest()
    index = INDEX_BASE | int.from_bytes(mark[:2], "big")
    return index, nv_name(index, _WRITTEN, HashAlg.SHA256.size)


@lru_cache(maxsize=4)
def _values(key: bytes) -> Mac:
    return Mac(key, _VALUE_LABEL)


def extended(base: bytes, value: bytes) -> bytes:
    """TPM2_NV_Extend on a SHA-256 index (TPM 2.0 Part 3, section 31.10): the digest of old content and data."""
    return hashlib.sha256(base + value).digest()
