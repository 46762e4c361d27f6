"""Pieces of IMA lists as rows."""

from __future__ import annotations

from verifier.ports import Recording
from verifier.store.rows import Values


def piece_values(recording: Recording) -> Values | None:
    """Columns of `ima_piece`; None where the quote proved nothing new."""
    piece, boot = recording.ima_piece, recording.boot
    if piece is None:
        return None
    return {
        "attester_id": recording.verdict.attester_id,
        "tenant": recording.verdict.tenant,
        "reset_count": boot.clock.reset_count,
        "restart_count": boot.clock.restart_count,
        "boot_log_sha256": boot.boot_log_sha256 or b"",
        "start": piece.start,
        "size": piece.size,
        "sha256": piece.sha256,
    }
