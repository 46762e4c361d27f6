"""The pieces in which IMA lists were sent and proven."""

from __future__ import annotations

from sqlalchemy import select

from verifier.ports_ima import BootKey, ImaPiece, joined
from verifier.store.backend import StorePart
from verifier.store.schema_ima import ima_piece


class ImaPieces(StorePart):
    """The `ImaStore` port; pieces are written by `record`."""

    async def ima_pieces(self, tenant: str, boot: BootKey, size: int) -> tuple[ImaPiece, ...] | None:
        """The pieces of the first `size` bytes, in order; None where one is missing."""
        found = await self._backend.rows(
            select(ima_piece.c.start, ima_piece.c.size, ima_piece.c.sha256)
            .where(
                ima_piece.c.tenant == tenant,
                ima_piece.c.attester_id == boot.attester_id,
                ima_piece.c.reset_count == boot.clock.reset_count,
                ima_piece.c.restart_count == boot.clock.restart_count,
                ima_piece.c.boot_log_sha256 == (boot.boot_log_sha256 or b""),
                ima_piece.c.start < size,
            )
            .order_by(ima_piece.c.start)
        )
        return joined([ImaPiece(start=row[0], size=row[1], sha256=row[2]) for row in found], size)
