"""IMA lists as they were judged, put together again from what is stored."""

from __future__ import annotations

from typing import Final

from verifier.errors import StoredDataDamaged
from verifier.ports import Store, VerdictRecord
from verifier.ports_ima import BootKey
from verifier.service.bundle import StoredEvidence

MAX_REBUILT: Final = 48 * 1024 * 1024
"""Bytes of a list that is put together again; a longer one has to be sent."""


async def stored_list(store: Store, tenant: str, boot: BootKey, size: int) -> bytes | None:
    """The first `size` bytes proven of a boot's list; None where it is too long, or a part is gone or damaged."""
    if size > MAX_REBUILT:
        return None
    pieces = await store.ima_pieces(tenant, boot, size)
    if pieces is None:
        return None
    contents: list[bytes] = []
    for piece in pieces:
        content = await _blob(store, piece.sha256)
        if content is None:
            return None
        contents.append(content)
    return b"".join(contents)[:size]


async def judged_list(store: Store, verdict: VerdictRecord, stored: StoredEvidence) -> bytes | None:
    """The list that a verdict was made from; None where none was judged, or it is not kept whole any more."""
    if stored.ima is None:
        return None
    size, digest = stored.ima
    boot = BootKey(
        attester_id=verdict.attester_id, clock=verdict.clock, boot_log_sha256=stored.boot_log_sha256
    )
    held = await stored_list(store, verdict.tenant, boot, size)
    came = b"" if digest is None else await _blob(store, digest)
    return None if held is None or came is None else held + came


async def _blob(store: Store, digest: bytes) -> bytes | None:
    try:
        return await store.blob(digest)
    except StoredDataDamaged:
        return None
