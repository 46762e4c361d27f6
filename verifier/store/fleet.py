"""The fleet: listings, counts, and what an operator decides of one attester."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Final, assert_never

from sqlalchemy import ColumnElement, Connection, Update, delete, exists, func, insert, or_, select, update

from verifier.errors import EvidenceError
from verifier.ports import AttesterState, FleetFilter, Lifecycle, Page
from verifier.reasons import Reason, Tier
from verifier.store import statements, values
from verifier.store.attestations import Attestations
from verifier.store.backend import changed
from verifier.store.cursors import decode_cursor, encode_cursor
from verifier.store.schema import attester, attester_label, latest

MAX_PAGE: Final = 1_000
_CATEGORIES: Final = (*(tier.label for tier in Tier), Lifecycle.ENROLLED, Lifecycle.STALE, Lifecycle.REVOKED)


class Fleet(Attestations):
    """The fleet methods of the `Store` port."""

    async def list_attesters(
        self, tenant: str, where: FleetFilter, *, now: datetime, cursor: str | None, limit: int
    ) -> Page[AttesterState]:
        """One page, ordered by id, so that an attester is neither skipped nor shown twice while others come.

        `where.tier` matches current verdicts; with a lifecycle it matches the last verdict of those in it. An
        attester whose verdict has run out is given as `stale`.

        Raises:
            EvidenceError: `malformed-request` for a cursor of another listing or a limit out of range.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise EvidenceError(Reason.MALFORMED_REQUEST, f"a page of {limit} is not within 1 and {MAX_PAGE}")
        at = values.micros(now)
        query = statements.attester_states().where(latest.c.tenant == tenant, *_conditions(where, at))
        if cursor is not None:
            query = query.where(latest.c.attester_id > decode_cursor(cursor, tenant, where))
        found = await self._backend.rows(query.order_by(latest.c.attester_id).limit(limit + 1))
        items = tuple(_as_of(self._state(row), now) for row in found[:limit])
        more = len(found) > limit
        return Page(items=items, cursor=encode_cursor(items[-1].attester.id, tenant, where) if more else None)

    async def status_counts(self, tenant: str, now: datetime) -> Mapping[str, int]:
        """Every attester counted once: `revoked`, `stale`, the tier of its current verdict, or `enrolled`."""
        stale = (latest.c.valid_until < values.micros(now)).label("stale")
        found = await self._backend.rows(
            select(latest.c.lifecycle, latest.c.tier, stale, func.count())
            .where(latest.c.tenant == tenant)
            .group_by(latest.c.lifecycle, latest.c.tier, stale)
        )
        counts = dict.fromkeys(map(str, _CATEGORIES), 0)
        for lifecycle, tier, is_stale, count in found:
            category = _category(Lifecycle(lifecycle), tier, stale=bool(is_stale))
            counts[category] = counts.get(category, 0) + count
        return counts

    async def revoke_attester(self, tenant: str, attester_id: str, now: datetime) -> bool:
        """True when the attester exists; it keeps the time it was first revoked."""
        return await self._backend.write(
            lambda connection: _revoke(connection, tenant, attester_id, values.micros(now))
        )

    async def assign_policy(self, tenant: str, attester_id: str, policy_id: str | None) -> bool:
        """True when the attester exists."""
        return bool(await self._change(_of(tenant, attester_id).values(policy_id=policy_id)))

    async def set_labels(self, tenant: str, attester_id: str, labels: Mapping[str, str]) -> bool:
        """Replace the labels of an attester; True when it exists."""
        clean = {_plain(key): _plain(value) for key, value in sorted(labels.items())}
        return await self._backend.write(lambda connection: _label(connection, tenant, attester_id, clean))


def _of(tenant: str, attester_id: str) -> Update:
    return update(attester).where(attester.c.tenant == tenant, attester.c.id == attester_id)


def _revoke(connection: Connection, tenant: str, attester_id: str, at: int) -> bool:
    # `latest` before `attester`, the order in which recordings lock them.
    shown = update(latest).where(latest.c.tenant == tenant, latest.c.attester_id == attester_id)
    if not changed(connection, shown.values(lifecycle=Lifecycle.REVOKED.value)):
        return False
    revoked = _of(tenant, attester_id).values(revoked_at=func.coalesce(attester.c.revoked_at, at))
    return changed(connection, revoked) == 1


def _label(connection: Connection, tenant: str, attester_id: str, labels: Mapping[str, str]) -> bool:
    if not changed(connection, _of(tenant, attester_id).values(labels=values.json_text(labels))):
        return False
    connection.execute(delete(attester_label).where(attester_label.c.attester_id == attester_id))
    rows = [
        {"attester_id": attester_id, "key": key, "value": value, "tenant": tenant}
        for key, value in labels.items()
    ]
    if rows:
        connection.execute(insert(attester_label), rows)
    return True


def _plain(text: str) -> str:
    return values.plain_text(text) or ""


def _conditions(where: FleetFilter, at: int) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    lifecycle = where.lifecycle
    if where.tier is not None:
        found.append(latest.c.tier == where.tier.value)
        lifecycle = lifecycle or Lifecycle.ENROLLED
    if lifecycle is not None:
        found.extend(_in_lifecycle(lifecycle, at))
    if where.label is not None:
        key, value = where.label
        found.append(
            exists().where(
                attester_label.c.attester_id == latest.c.attester_id,
                attester_label.c.key == _plain(key),
                attester_label.c.value == _plain(value),
            )
        )
    if where.search:
        found.append(attester.c.search_text.contains(_plain(where.search).lower(), autoescape=True))
    return found


def _in_lifecycle(lifecycle: Lifecycle, at: int) -> tuple[ColumnElement[bool], ...]:
    if lifecycle in (Lifecycle.PENDING, Lifecycle.REVOKED):
        return (latest.c.lifecycle == lifecycle.value,)
    enrolled = latest.c.lifecycle == Lifecycle.ENROLLED.value
    if lifecycle is Lifecycle.STALE:
        return enrolled, latest.c.valid_until < at
    if lifecycle is Lifecycle.ENROLLED:
        return enrolled, or_(latest.c.valid_until.is_(None), latest.c.valid_until >= at)
    assert_never(lifecycle)


def _category(lifecycle: Lifecycle, tier: int | None, *, stale: bool) -> str:
    if lifecycle is not Lifecycle.ENROLLED:
        return lifecycle.value
    if stale:
        return Lifecycle.STALE.value
    return Lifecycle.ENROLLED.value if tier is None else Tier(tier).label


def _as_of(state: AttesterState, now: datetime) -> AttesterState:
    """`stale` where it is so now; nothing stored says it."""
    if (
        state.latest is None
        or state.attester.lifecycle is not Lifecycle.ENROLLED
        or state.latest.valid_until >= now
    ):
        return state
    return dataclasses.replace(state, attester=dataclasses.replace(state.attester, lifecycle=Lifecycle.STALE))
