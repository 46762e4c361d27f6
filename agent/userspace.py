"""NvPCRs: NV indices that systemd extends like PCRs. What they hold is proven by a certificate of the AK alone.

Which there are stands in systemd's log; the agent reads that much of it and no more. What the log is worth is the
verifier's to say.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from agent.errors import TpmError
from agent.tpm import Key, Tpm
from agent.wire.limits import MAX_NVPCRS
from agent.wire.messages import NvCertificate

_START: Final = re.compile(r"nvpcr-init:[^:]*:0x([0-9a-f]{1,8}):")
_NV_INDICES: Final = range(0x01000000, 0x02000000)
_HEAD: Final = struct.Struct(">IHI")
_TYPE: Final = 0xF << 4
_EXTEND: Final = 4 << 4
_WRITTEN: Final = 1 << 29
"""TPMA_NV (TPM 2.0 Part 2, section 13.4)."""


def named_indices(log: bytes) -> list[int]:
    """NV indices that systemd's log says were started or extended, at most as many as a verifier takes."""
    found: dict[int, None] = {}
    for piece in log.replace(b"\x1e", b"\n").split(b"\n"):
        try:
            record = msgspec.json.decode(piece)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue  # being written; what is whole is read
        found |= {index: None for index in _indices(record) if index in _NV_INDICES}
    return list(found)[:MAX_NVPCRS]


def _indices(record: object) -> Iterator[int]:
    if not isinstance(record, dict):
        return
    extended, content = record.get("nv_index"), record.get("content")
    if isinstance(extended, int):
        yield extended
    text = content.get("string") if isinstance(content, dict) else None
    started = _START.match(text) if isinstance(text, str) else None
    if started is not None:
        yield int(started[1], 16)


def certify_nvpcrs(
    tpm: Tpm, ak: Key, log: bytes, nonce: bytes, note: Callable[[str], None]
) -> list[NvCertificate]:
    """Certify what the log names and the TPM has as an index that can only be extended; the rest is a note.

    Raises:
        TpmError: a passing trouble; the attestation shall be tried again rather than be made without.
    """
    certificates: list[NvCertificate] = []
    for index in named_indices(log):
        try:
            certificate = _certify(tpm, ak, index, nonce)
        except TpmError as error:
            if error.transient:
                raise
            note(f"NV index {index:#010x} is not certified: {error.message}")
            continue
        if certificate is None:
            note(f"NV index {index:#010x}, which systemd's log names, is not there or no NvPCR")
        else:
            certificates.append(certificate)
    return certificates


def _certify(tpm: Tpm, ak: Key, index: int, nonce: bytes) -> NvCertificate | None:
    public = tpm.nv_public(index)
    if public is None:
        return None
    _, _, attributes = _HEAD.unpack_from(public)
    if attributes & _TYPE != _EXTEND or not attributes & _WRITTEN:
        return None
    certified = tpm.nv_certify(ak, index, int.from_bytes(public[-2:]), nonce)
    return NvCertificate(public=public, attest=certified.attest, signature=certified.signature)
