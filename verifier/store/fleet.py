"""The fleet: listings, counts, and what an operator decides of one attester."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, assert_never

from msgspec import structs
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    delete,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)

from verifier.appraisal.lineage import IncidentKind
from verifier.errors import EvidenceError, StoredDataDamaged
from verifier.ports import DEFAULT_TENANT, AttesterState, DamagedState, FleetFilter, Lifecycle, Page
from verifier.ports_enrollment import AuditEntry, EnrollmentStatus
from verifier.ports_events import EventKind, NewEvent
from verifier.ports_observe import OpenCounts
from verifier.reasons import Reason, Tier
from verifier.store import event_log, stale, statements, values
from verifier.store.attestations import Attestations
from verifier.store.audit_log import append
from verifier.store.backend import changed
from verifier.store.cursors import decode_cursor, encode_cursor
from verifier.store.rows import Row
from verifier.store.schema import anchor_assignment, attester, attester_label, enrollment, latest, policy

MAX_PAGE: Final = 1_000
_SLICE: Final = 32
"""Rows read before others get their turn on the event loop."""
_OWNED: Final = (latest.c.tenant, enrollment.c.tenant, policy.c.tenant, anchor_assignment.c.tenant)
MAX_LABELS: Final = 64
MAX_LABEL: Final = 256
"""Characters of a key or a value: an index entry of PostgreSQL must hold both."""


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
        page = await self._page(tenant, where, now, cursor, limit)
        return Page(items=tuple(_as_of(self._state(row), now) for row in page.items), cursor=page.cursor)

    async def survey(
        self, tenant: str, where: FleetFilter, *, now: datetime, cursor: str | None, limit: int
    ) -> Page[AttesterState | DamagedState]:
        """The same page, with what cannot be read named in its place."""
        page = await self._page(tenant, where, now, cursor, limit)
        items: list[AttesterState | DamagedState] = []
        for row in page.items:
            items.append(self._state_or_damage(row, now))
            if len(items) % _SLICE == 0:
                await asyncio.sleep(0)
        return Page(items=tuple(items), cursor=page.cursor)

    async def _page(
        self, tenant: str, where: FleetFilter, now: datetime, cursor: str | None, limit: int
    ) -> Page[Row]:
        if not 1 <= limit <= MAX_PAGE:
            raise EvidenceError(Reason.MALFORMED_REQUEST, f"a page of {limit} is not within 1 and {MAX_PAGE}")
        after = None if cursor is None else decode_cursor(cursor, tenant, where)
        found = await self._backend.rows(self._statement(tenant, where, values.micros(now), after, limit + 1))
        items, more = tuple(found[:limit]), bool(found) and found[-1][statements.STATE_PAGE] > limit
        return Page(items=items, cursor=encode_cursor(_id_of(items[-1]), tenant, where) if more else None)

    def _statement(
        self, tenant: str, where: FleetFilter, at: int, after: str | None, most: int
    ) -> Select[*tuple[Any, ...]]:
        if stale.alone(where) and not self._backend.index_suffices:
            return statements.attester_page(
                stale.first(tenant, at, after, most), most, in_steps=self._backend.plans_anew
            )
        ids = _listing(tenant, where, at)
        if after is not None:
            (key,) = ids.selected_columns
            ids = ids.where(key > after)
        return statements.attester_page(ids, most, in_steps=self._backend.plans_anew)

    def _state_or_damage(self, row: Row, now: datetime) -> AttesterState | DamagedState:
        try:
            return _as_of(self._state(row), now)
        except StoredDataDamaged as error:
            return DamagedState(attester_id=_id_of(row), detail=str(error))

    async def status_counts(self, tenant: str, now: datetime) -> Mapping[str, int]:
        """Every attester counted once: `revoked`, `retired`, `stale`, the tier of its verdict, or `enrolled`."""
        at = values.micros(now)
        enrolled, holds = latest.c.lifecycle == Lifecycle.ENROLLED.value, statements.holds_at(at)
        # Each row is held against all of these, and text compares slowest: numbers that fail most often come first.
        categories = {
            **{tier.label: and_(latest.c.tier == tier.value, holds, enrolled) for tier in Tier},
            "enrolled": and_(latest.c.tier.is_(None), enrolled),
            "stale": and_(not_(holds), enrolled),
            "revoked": latest.c.lifecycle == Lifecycle.REVOKED.value,
            "retired": latest.c.lifecycle == Lifecycle.RETIRED.value,
        }
        counted: list[ColumnElement[int]] = [
            func.count().filter(condition) for condition in categories.values()
        ]
        row = await self._first(select(*counted).where(latest.c.tenant == tenant))
        return dict.fromkeys(categories, 0) if row is None else dict(zip(categories, row, strict=True))

    async def open_counts(self, tenant: str, now: datetime) -> OpenCounts:
        """What waits for a person."""
        pending = select(func.count()).where(
            enrollment.c.tenant == tenant,
            enrollment.c.status == EnrollmentStatus.PENDING.value,
            enrollment.c.expires_at > values.micros(now),
        )
        kinds = (
            select(latest.c.incident, func.count())
            .where(latest.c.tenant == tenant, latest.c.incident.is_not(None))
            .group_by(latest.c.incident)
        )
        row = await self._first(pending)
        found = {str(kind): int(count) for kind, count in await self._backend.rows(kinds)}
        return OpenCounts(
            pending_enrollments=0 if row is None else int(row[0]),
            incidents={kind.value: found.get(kind.value, 0) for kind in IncidentKind},
        )

    async def tenants(self) -> tuple[str, ...]:
        """The default one and every other that has something of its own, each found by one step in an index."""
        found = {DEFAULT_TENANT}
        for column in _OWNED:
            row = await self._first(select(func.min(column)))
            while row is not None and row[0] is not None:
                found.add(row[0])
                row = await self._first(select(func.min(column)).where(column > row[0]))
        return tuple(sorted(found))

    async def revoke_attester(
        self, tenant: str, attester_id: str, now: datetime, audit: AuditEntry | None = None
    ) -> bool:
        """True when the attester exists; it keeps the time, and the entry in the audit log, of its first revocation."""
        return await self._backend.write(
            lambda connection: _revoke(connection, tenant, attester_id, values.micros(now), audit)
        )

    async def assign_policy(
        self, tenant: str, attester_id: str, policy_id: str | None, audit: AuditEntry | None = None
    ) -> bool:
        """True when the attester exists."""

        def work(connection: Connection) -> bool:
            if not changed(connection, _of(tenant, attester_id).values(policy_id=policy_id)):
                return False
            if audit is not None:
                append(connection, audit)
            return True

        return await self._backend.write(work)

    async def set_labels(
        self, tenant: str, attester_id: str, labels: Mapping[str, str], audit: AuditEntry
    ) -> bool:
        """Replace the labels of an attester; True when it exists.

        Raises:
            EvidenceError: `malformed-request` for too many of them, or one that is empty or too long.
        """
        _check_labels(labels)
        clean = {_plain(key): _plain(value) for key, value in sorted(labels.items())}

        def work(connection: Connection) -> bool:
            if not _label(connection, tenant, attester_id, clean):
                return False
            append(connection, audit)
            return True

        return await self._backend.write(work)


def _id_of(row: Row) -> str:
    return str(row[statements.STATE_ATTESTER][0])


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise EvidenceError(Reason.MALFORMED_REQUEST, f"{len(labels)} labels are more than {MAX_LABELS}")
    for key, value in labels.items():
        if not key or len(key) > MAX_LABEL or len(value) > MAX_LABEL:
            raise EvidenceError(
                Reason.MALFORMED_REQUEST,
                f"label {key[:MAX_LABEL]!r}: a key or value has 1 to {MAX_LABEL} characters",
            )


def _of(tenant: str, attester_id: str) -> Update:
    return update(attester).where(attester.c.tenant == tenant, attester.c.id == attester_id)


def _revoke(connection: Connection, tenant: str, attester_id: str, at: int, audit: AuditEntry | None) -> bool:
    # `latest` before `attester`, the order in which recordings lock them.
    shown = update(latest).where(latest.c.tenant == tenant, latest.c.attester_id == attester_id)
    anew = changed(
        connection,
        shown.where(latest.c.lifecycle != Lifecycle.REVOKED.value).values(lifecycle=Lifecycle.REVOKED.value),
    )
    revoked = _of(tenant, attester_id).values(revoked_at=func.coalesce(attester.c.revoked_at, at))
    if anew:
        told = NewEvent(
            tenant=tenant,
            kind=EventKind.ATTESTER_REVOKED,
            subject=attester_id,
            attester_id=attester_id,
            at=values.moment(at),
        )
        event_log.append(connection, told)
        if audit is not None:
            append(connection, audit)
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


def _listing(tenant: str, where: FleetFilter, at: int) -> Select[str]:
    """The ids, by that of the equal columns whose index finds the rarest rows, and is in their order."""
    key: ColumnElement[str] = latest.c.attester_id
    if where.label is not None:
        key = attester_label.c.attester_id
    elif where.search:
        key = attester.c.id
    query = select(key).where(latest.c.tenant == tenant)
    if key is not latest.c.attester_id:
        query = query.where(latest.c.attester_id == key)
    lifecycle = where.lifecycle
    if where.tier is not None:
        query = query.where(latest.c.tier == where.tier.value)
        lifecycle = lifecycle or Lifecycle.ENROLLED
    if lifecycle is not None:
        query = query.where(*_in_lifecycle(lifecycle, at))
    if where.incident:
        query = query.where(latest.c.incident.is_not(None))
    if where.label is not None:
        name, value = map(_plain, where.label)
        query = query.where(
            attester_label.c.tenant == tenant, attester_label.c.key == name, attester_label.c.value == value
        )
    if where.search:
        # The tenant said again of this table, whose index holds all that a search reads.
        found = attester.c.search_text.contains(_plain(where.search).lower(), autoescape=True)
        query = query.where(attester.c.tenant == tenant, found)
        if key is not attester.c.id:
            query = query.where(attester.c.id == key)
    return query


def _in_lifecycle(lifecycle: Lifecycle, at: int) -> tuple[ColumnElement[bool], ...]:
    if lifecycle in (Lifecycle.PENDING, Lifecycle.REVOKED, Lifecycle.RETIRED):
        return (latest.c.lifecycle == lifecycle.value,)
    enrolled = latest.c.lifecycle == Lifecycle.ENROLLED.value
    if lifecycle is Lifecycle.STALE:
        return enrolled, not_(statements.holds_at(at))
    if lifecycle is Lifecycle.ENROLLED:
        return enrolled, or_(latest.c.valid_until.is_(None), statements.holds_at(at))
    assert_never(lifecycle)


def _as_of(state: AttesterState, now: datetime) -> AttesterState:
    """`stale` where it is so now; nothing stored says it."""
    if (
        state.latest is None
        or state.attester.lifecycle is not Lifecycle.ENROLLED
        or state.latest.holds_at(now)
    ):
        return state
    return structs.replace(state, attester=structs.replace(state.attester, lifecycle=Lifecycle.STALE))
