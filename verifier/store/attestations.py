"""Attestations: the hot path. One read before, one group commit after; history and evidence beside."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select, update

from verifier.appraisal.lineage import Lineage
from verifier.errors import NotFoundError, StateMovedError, StoredDataDamaged, StoreUnavailable
from verifier.ports import AttesterState, Recording, VerdictRecord
from verifier.ports_enrollment import AuditEntry
from verifier.store import audit_log, blobs, event_log, recording, rows, statements, values
from verifier.store.backend import Backend, StorePart, changed
from verifier.store.judgements import Judgements
from verifier.store.recording import Spent, lineage_values
from verifier.store.rows import Judgement, Row
from verifier.store.schema import attestation, blob, judgement, latest, nonce
from verifier.store.schema_background import nonce_floor

_JUDGEMENTS: Final = 2_048
"""Decoded judgements kept. Their key is the digest of their content, so a kept one is never out of date."""

_UNSAID: Final = Judgement(vector={}, findings=())
_OFFLOAD_ABOVE: Final = 256 * 1024
"""Bytes; to pack, or to expand and prove more would hold up the event loop."""


class Attestations(StorePart):
    """The attestation methods of the `Store` port."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._said = Judgements()
        self._judgements: OrderedDict[bytes, Judgement] = OrderedDict()
        self._damaged: set[bytes] = set()
        """Digests of judgements that were read and are not what they were."""

    async def attester_state(self, attester_id: str) -> AttesterState | None:
        """Everything one attestation needs, by one indexed query."""
        row = await self._backend.lookup(statements.ATTESTER_STATE, attester_id)
        return None if row is None else self._state(row)

    async def attester_past(self, attester_id: str) -> AttesterState | None:
        """See `verifier.ports`."""
        row = await self._backend.lookup(statements.ATTESTER_STATE, attester_id)
        return None if row is None else self._state(row, unsaid=True)

    async def record(self, item: Recording) -> VerdictRecord | None:
        """Store a recording; returns when it is durable, None when its nonce was spent before.

        Raises:
            NotFoundError: no such attester in this tenant; the nonce stays unspent.
            StateMovedError: it is no longer what this was judged by; the nonce stays unspent.
        """
        packed = None
        if sum(map(len, item.blobs.values())) > _OFFLOAD_ABOVE:
            packed = await asyncio.to_thread(blobs.pack_all, item.blobs)
        prepared = recording.prepare(item, self._said, packed)
        outcome = await self._backend.record(prepared)
        if isinstance(outcome, int):
            if self._damaged:
                await self._mend(prepared.judgement)
            return item.verdict.numbered(outcome)
        if isinstance(outcome, Spent):
            return None
        if isinstance(outcome, NotFoundError):
            raise outcome
        raise StateMovedError(
            f"attester {item.verdict.attester_id} is no longer what it was at position {item.position}"
        )

    async def _mend(self, said: blobs.PackedBlob) -> None:
        """A verdict says again what was damaged: now it can be read."""
        if said.digest in self._damaged:
            values = {"codec": said.codec, "size": said.size, "content": said.content}
            with suppress(StoreUnavailable):  # what was recorded is: the next one mends it
                await self._change(update(judgement).where(judgement.c.digest == said.digest).values(values))
                self._damaged.discard(said.digest)

    async def nonces_dropped_until(self) -> datetime:
        """Of nonces that expire before this moment it is not known any more whether they were spent."""
        ((moment,),) = await self._backend.rows(select(nonce_floor.c.dropped_until))
        return values.moment(moment)

    async def nonce_spent(self, nonce_hash: bytes) -> bool:
        """Whether a recording with this nonce is stored, and the nonce not yet purged."""
        return await self._first(select(nonce.c.hash).where(nonce.c.hash == nonce_hash)) is not None

    async def resolve_lineage(
        self, tenant: str, attester_id: str, position: int, lineage: Lineage, audit: AuditEntry
    ) -> bool:
        """True when the attester was at `position`; it is at the next one then."""
        changes = lineage_values(lineage)
        resolved = (
            update(latest)
            .where(
                latest.c.tenant == tenant,
                latest.c.attester_id == attester_id,
                latest.c.position == position,
            )
            .values(position=position + 1, **changes)
        )

        def run(connection: Connection) -> bool:
            if not changed(connection, resolved):
                return False
            audit_log.append(connection, audit)
            event_log.append_audited(connection, audit)
            return True

        return await self._backend.write(run)

    async def mend_blob(self, digest: bytes, content: bytes) -> None:
        """Put content in the place of what is damaged; `ValueError` where it has not this digest."""
        packed = await asyncio.to_thread(blobs.pack, digest, content)
        values = {"codec": packed.codec, "size": packed.size, "content": packed.content}
        await self._change(update(blob).where(blob.c.digest == digest).values(values))

    async def has_blob(self, digest: bytes) -> bool:
        """Whether a blob is held; `blob` proves that it is sound."""
        return await self._backend.lookup(statements.HAS_BLOB, digest) is not None

    async def blob(self, digest: bytes) -> bytes | None:
        """The blob, proven to have this digest."""
        row = await self._backend.lookup(statements.BLOB, digest)
        if row is None:
            return None
        packed = blobs.PackedBlob(*row)
        if packed.size > _OFFLOAD_ABOVE:
            return await asyncio.to_thread(blobs.unpack, packed)
        return blobs.unpack(packed)

    async def history(
        self, tenant: str, attester_id: str, *, before: int | None, limit: int
    ) -> tuple[VerdictRecord, ...]:
        """Newest first."""
        query = statements.history().where(
            attestation.c.tenant == tenant, attestation.c.attester_id == attester_id
        )
        if before is not None:
            query = query.where(attestation.c.sequence < before)
        found = await self._backend.rows(query.limit(limit))
        return tuple(
            rows.verdict_record(
                row[statements.HISTORY_VERDICT],
                self._judgement(row[statements.HISTORY_VERDICT], row[statements.HISTORY_JUDGEMENT]),
            )
            for row in found
        )

    def _state(self, row: Row, *, unsaid: bool = False) -> AttesterState:
        verdict = row[statements.STATE_VERDICT]
        boot = row[statements.STATE_BOOT]
        attested = verdict[rows.VERDICT_SEQUENCE] > 0
        return AttesterState(
            attester=rows.attester_record(row[statements.STATE_ATTESTER]),
            boot=rows.boot_record(boot) if boot[0] is not None else None,
            latest=rows.verdict_record(
                verdict, _UNSAID if unsaid else self._judgement(verdict, row[statements.STATE_JUDGEMENT])
            )
            if attested
            else None,
            lineage=values.read_lineage(row[statements.STATE_LINEAGE]),
            position=row[statements.STATE_POSITION],
            standing=statements.STATE_STANDING(row),
        )

    def _judgement(self, verdict: Row, body: Row) -> Judgement:
        digest = verdict[rows.VERDICT_JUDGEMENT]
        found = self._judgements.get(digest)
        if found is not None:
            self._judgements.move_to_end(digest)
            return found
        if body[0] is None:
            raise StoredDataDamaged(f"judgement {digest.hex()} of attester {verdict[0]} is missing")
        try:
            found = rows.read_judgement(blobs.unpack(blobs.PackedBlob(*body)))
        except StoredDataDamaged:
            self._damaged.add(digest)
            raise
        self._judgements[digest] = found
        if len(self._judgements) > _JUDGEMENTS:
            self._judgements.popitem(last=False)
        return found
