"""Evidence: which blobs a verdict was judged from, and dropping those that no verdict to be kept needs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import and_, delete, select

from verifier.store import values
from verifier.store.backend import StorePart
from verifier.store.schema import attestation, blob, boot, latest
from verifier.store.schema_ima import ima_piece

_BOOT_KEY: Final = ("attester_id", "reset_count", "restart_count", "boot_log_sha256")
_PAGE: Final = 2_000
_CHUNK: Final = 500
"""Blobs deleted in one transaction: whoever else wants to write waits no longer than that."""


class Evidences(StorePart):
    """The evidence methods of the `Store` port."""

    async def evidence_of(self, tenant: str, attester_id: str, sequence: int) -> Mapping[str, str] | None:
        """Role to hex digest of the blobs a verdict was judged from."""
        row = await self._first(
            select(attestation.c.evidence).where(
                attestation.c.tenant == tenant,
                attestation.c.attester_id == attester_id,
                attestation.c.sequence == sequence,
            )
        )
        return None if row is None else values.read_labels(row[0])

    async def purge_evidence(self, before: datetime) -> int:
        """Drop blobs that no verdict named since the day of `before`, but for those of latest verdicts.

        A verdict touches all it names on its day, so only verdicts older than that day can need what is dropped, and of
        these the latest of attesters that have been silent since are asked for. Whoever names a blob while this runs
        touches it first, and the delete looks at that day again: see the order of `recording.Step`.
        """
        day = values.micros(before) // values.DAY * values.DAY
        await self._drop_pieces(day)
        kept = await self._of_the_silent(day)
        gone, after = 0, (-1, b"")
        while True:
            page = await self._candidates(day, after)
            if not page:
                return gone
            after = page[-1]
            unneeded = [digest for _, digest in page if digest not in kept]
            for start in range(0, len(unneeded), _CHUNK):
                chunk = unneeded[start : start + _CHUNK]
                gone += await self._change(
                    delete(blob).where(blob.c.digest.in_(chunk), blob.c.last_used_at < day)
                )
                self._backend.dropped()

    async def _drop_pieces(self, day: int) -> None:
        """Forget the lists of boots that were last proven before `day` and have been followed by others."""
        same_boot = and_(*(ima_piece.c[name] == boot.c[name] for name in _BOOT_KEY))
        current = select(latest.c.attester_id).where(
            latest.c.attester_id == boot.c.attester_id,
            latest.c.boot_reset_count == boot.c.reset_count,
            latest.c.boot_restart_count == boot.c.restart_count,
            latest.c.boot_log_sha256 == boot.c.boot_log_sha256,
        )
        over = (
            select(*(boot.c[name] for name in _BOOT_KEY))
            .join_from(ima_piece, boot, same_boot)
            .where(boot.c.seen_at < day, ~current.exists())
            .distinct()
            .limit(_CHUNK)
        )
        while True:
            keys = await self._backend.rows(over)
            for key in keys:
                named = zip(_BOOT_KEY, key, strict=True)
                await self._change(
                    delete(ima_piece).where(*(ima_piece.c[name] == value for name, value in named))
                )
            if len(keys) < _CHUNK:
                return

    async def _of_the_silent(self, day: int) -> set[bytes]:
        """Digests of the latest evidence of attesters that were last judged before `day`."""
        found: set[bytes] = set()
        after = ""
        while True:
            page = await self._backend.rows(
                select(latest.c.attester_id, attestation.c.evidence)
                .join_from(
                    latest,
                    attestation,
                    (attestation.c.attester_id == latest.c.attester_id)
                    & (attestation.c.sequence == latest.c.sequence)
                    # Names the partition.
                    & (attestation.c.judged_at == latest.c.judged_at),
                )
                .where(latest.c.attester_id > after, latest.c.judged_at < day)
                .order_by(latest.c.attester_id)
                .limit(_PAGE)
            )
            for attester_id, evidence in page:
                found.update(map(bytes.fromhex, values.read_labels(evidence).values()))
                after = attester_id
            if len(page) < _PAGE:
                return found

    async def _candidates(self, day: int, after: tuple[int, bytes]) -> list[tuple[int, bytes]]:
        used, digest = after
        page = await self._backend.rows(
            select(blob.c.last_used_at, blob.c.digest)
            .where(
                blob.c.last_used_at < day,
                # A list is judged anew whenever its policy changes, from its beginning: what there is of it stays.
                ~select(ima_piece.c.sha256).where(ima_piece.c.sha256 == blob.c.digest).exists(),
                (blob.c.last_used_at > used) | ((blob.c.last_used_at == used) & (blob.c.digest > digest)),
            )
            .order_by(blob.c.last_used_at, blob.c.digest)
            .limit(_PAGE)
        )
        return [(row[0], row[1]) for row in page]
