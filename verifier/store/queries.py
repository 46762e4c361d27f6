"""What relying parties read: verdicts of many attesters, by what they are."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, select

from verifier.errors import EvidenceError
from verifier.ports import Lifecycle, Page
from verifier.ports_queries import MAX_BULK, Mark, Standing, StandingFilter
from verifier.reasons import Reason, Tier
from verifier.store import identities, rows, statements, values
from verifier.store.attestations import Attestations
from verifier.store.cursors import decode_cursor, encode_cursor
from verifier.store.rows import Row
from verifier.store.schema import attester, attester_label, attester_uuid, judgement, latest

_SLICE: Final = 32
"""Rows read before others get their turn on the event loop."""
_verdict_end: Final = len(rows.LATEST_COLUMNS)
_VERDICT: Final = slice(0, _verdict_end)
_JUDGEMENT: Final = slice(_verdict_end, _verdict_end + 4)
_OF_ATTESTER: Final = slice(_verdict_end + 4, None)
_STANDINGS: Final = select(
    *rows.LATEST_COLUMNS,
    judgement.c.digest,
    judgement.c.codec,
    judgement.c.size,
    judgement.c.content,
    attester.c.id,
    attester.c.tenant,
    attester.c.ek_fingerprint,
    latest.c.lifecycle,
    attester.c.revoked_at,
    attester.c.replaced_by,
).select_from(
    latest.join(attester, attester.c.id == latest.c.attester_id).outerjoin(
        judgement, judgement.c.digest == latest.c.judgement
    )
)
_MARKS: Final = select(
    latest.c.attester_id,
    latest.c.tenant,
    latest.c.lifecycle,
    latest.c.sequence,
    latest.c.tier,
    latest.c.judged_at,
    latest.c.valid_until,
)


class Queries(Attestations):
    """`verifier.ports_queries.QueryStore`."""

    async def standings(
        self, tenant: str, where: StandingFilter, *, now: datetime, cursor: str | None, limit: int
    ) -> Page[Standing]:
        """One page, ordered by id; see the port."""
        if not 1 <= limit <= MAX_BULK:
            raise EvidenceError(Reason.MALFORMED_REQUEST, f"a page of {limit} is not within 1 and {MAX_BULK}")
        query, key = _listing(tenant, where, values.micros(now))
        if cursor is not None:
            query = query.where(key > decode_cursor(cursor, tenant, where))
        found = await self._backend.rows(query.order_by(key).limit(limit + 1))
        items = await self._standings(found[:limit])
        more = len(found) > limit
        return Page(items=items, cursor=encode_cursor(items[-1].attester_id, tenant, where) if more else None)

    async def standings_of(self, tenant: str, attester_ids: Sequence[str]) -> tuple[Standing, ...]:
        """Those that exist; see the port."""
        _check(attester_ids)
        query = _STANDINGS.where(latest.c.tenant == tenant, latest.c.attester_id.in_(attester_ids))
        return await self._standings(await self._backend.rows(query.order_by(latest.c.attester_id)))

    async def marks(self, attester_ids: Collection[str]) -> tuple[Mark, ...]:
        """Those that exist; see the port."""
        _check(attester_ids)
        found = await self._backend.rows(_MARKS.where(latest.c.attester_id.in_(attester_ids)))
        return tuple(map(_mark, found))

    async def _standings(self, found: Iterable[Row]) -> tuple[Standing, ...]:
        result: list[Standing] = []
        for row in found:
            result.append(self._standing(row))
            if len(result) % _SLICE == 0:
                await asyncio.sleep(0)
        return tuple(result)

    def _standing(self, row: Row) -> Standing:
        verdict = row[_VERDICT]
        attester_id, tenant, ek_fingerprint, lifecycle, revoked_at, replaced_by = row[_OF_ATTESTER]
        attested = verdict[rows.VERDICT_SEQUENCE] > 0
        return Standing(
            attester_id=attester_id,
            tenant=tenant,
            ek_fingerprint=ek_fingerprint,
            lifecycle=_lifecycle(lifecycle),
            revoked_at=values.moment_or_none(revoked_at),
            replaced_by=replaced_by,
            latest=rows.verdict_record(verdict, self._judgement(verdict, row[_JUDGEMENT]))
            if attested
            else None,
        )


def _check(attester_ids: Collection[str]) -> None:
    if len(attester_ids) > MAX_BULK:
        raise EvidenceError(
            Reason.MALFORMED_REQUEST, f"{len(attester_ids)} attesters are more than {MAX_BULK}"
        )


def _listing(
    tenant: str, where: StandingFilter, at: int
) -> tuple[Select[*tuple[Any, ...]], ColumnElement[str]]:
    """The query, and which of the equal ids to order by: that of the index that finds the rarest rows."""
    query = _STANDINGS.where(latest.c.tenant == tenant)
    key: ColumnElement[str] = latest.c.attester_id
    if where.least is not None:
        query = query.where(
            latest.c.lifecycle == Lifecycle.ENROLLED.value,
            statements.holds_at(at),
            latest.c.tier <= where.least.value,
        )
    if where.ek_fingerprint is not None:
        query = query.where(attester.c.tenant == tenant, attester.c.ek_fingerprint == where.ek_fingerprint)
    if where.smbios_uuids is not None:
        keys = sorted({identities.uuid_key(spelling) for spelling in where.smbios_uuids})
        claimed = select(attester_uuid.c.attester_id).where(
            attester_uuid.c.tenant == tenant, attester_uuid.c.smbios_uuid.in_(keys)
        )
        query = query.where(latest.c.attester_id.in_(claimed))
    if where.label is not None:
        name, value = (values.plain_text(part) or "" for part in where.label)
        query = query.join(attester_label, attester_label.c.attester_id == attester.c.id).where(
            attester_label.c.tenant == tenant, attester_label.c.key == name, attester_label.c.value == value
        )
        key = attester_label.c.attester_id
    return query, key


def _mark(row: Row) -> Mark:
    attester_id, tenant, lifecycle, sequence, tier, judged_at, valid_until = row
    return Mark(
        attester_id=attester_id,
        tenant=tenant,
        lifecycle=_lifecycle(lifecycle),
        sequence=sequence,
        tier=None if tier is None else Tier(tier),
        judged_at=values.moment_or_none(judged_at),
        valid_until=values.moment_or_none(valid_until),
    )


def _lifecycle(stored: str) -> Lifecycle:
    try:
        return Lifecycle(stored)
    except ValueError as error:
        raise values.damaged("latest", error) from error
