"""Enrolments: offered, then completed or decided once; what they leave behind is the attester and its keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select, text, update

from verifier.errors import EvidenceError
from verifier.ports import AttesterRecord, Page
from verifier.ports_enrollment import (
    AuditEntry,
    Decision,
    EnrollmentBounds,
    EnrollmentRecord,
    EnrollmentStatus,
    Filed,
)
from verifier.ports_events import EventKind, NewEvent
from verifier.reasons import Reason
from verifier.store import audit_log, event_log, rows, statements, tokens, values
from verifier.store.backend import StorePart
from verifier.store.binding import Binding
from verifier.store.cursors import decode_cursor, encode_cursor
from verifier.store.rows import Row
from verifier.store.schema import enrollment, nonce
from verifier.store.schema_background import nonce_floor

_CONSUME: Final = (
    delete(enrollment)
    .where(
        enrollment.c.id == bindparam("b_id"),
        enrollment.c.expires_at > bindparam("b_at"),
        enrollment.c.status == EnrollmentStatus.OFFERED.value,
        enrollment.c.waits_for.is_(None),
    )
    .returning(*rows.ENROLLMENT_COLUMNS)
)
"""Takes an enrolment that is offered out, once."""
_OFFERS: Final = 8
"""Challenges that one EK may have open: a further one takes the place of the oldest, whoever asked for it."""
_SURPLUS: Final = delete(enrollment).where(
    enrollment.c.id.in_(
        select(enrollment.c.id)
        .where(
            enrollment.c.tenant == bindparam("b_tenant"),
            enrollment.c.ek_fingerprint == bindparam("b_ek"),
            enrollment.c.status == EnrollmentStatus.OFFERED.value,
        )
        .order_by(enrollment.c.created_at.desc(), enrollment.c.id)
        .offset(_OFFERS - 1)
    )
)
_STATE: Final = statements.ATTESTER_STATE.one
_PURGE_CHUNK: Final = 5_000
"""Rows deleted in one transaction: whoever else wants to write waits no longer than that."""
_MAX_PAGE: Final = 1_000
_IS_PENDING: Final = text("status = 'pending'")
"""As the unique index has it: a parameter would not match it once PostgreSQL plans without looking at its value."""
_OPEN: Final = (EnrollmentStatus.OFFERED.value, EnrollmentStatus.PENDING.value)

_BY_ID: Final = select(*rows.ENROLLMENT_COLUMNS).where(enrollment.c.id == bindparam("id"))
_OF_EK: Final = (
    select(*rows.ENROLLMENT_COLUMNS)
    .where(
        enrollment.c.tenant == bindparam("tenant"),
        enrollment.c.ek_fingerprint == bindparam("ek"),
        enrollment.c.status != EnrollmentStatus.OFFERED.value,
        enrollment.c.expires_at > bindparam("at"),
    )
    .order_by(enrollment.c.created_at, enrollment.c.id)
    .limit(100)
)
_OFFERED: Final = (
    select(enrollment.c.id)
    .where(
        enrollment.c.tenant == bindparam("tenant"),
        enrollment.c.ek_fingerprint == bindparam("ek"),
        enrollment.c.status == EnrollmentStatus.OFFERED.value,
        enrollment.c.ak_name == bindparam("ak"),
        enrollment.c.token_id == bindparam("token"),
        enrollment.c.expires_at > bindparam("at"),
    )
    .limit(1)
)


class _UnpaidError(Exception):
    """Undoes the transaction of a challenge whose token has no use left."""


class Enrollments(StorePart):
    """The enrolment methods of the `Store` port, and the purge of what has expired."""

    async def add_enrollment(
        self, record: EnrollmentRecord, bounds: EnrollmentBounds | None = None, *, spends: bool = False
    ) -> Filed:
        """Keep a challenge that is out, with the use of its token in one transaction; the EK's oldest makes room.

        Requests that arrive in the same instant on several replicas may exceed a bound by their number.
        """
        row = rows.enrollment_values(record)

        def run(connection: Connection) -> Filed:
            full = None if bounds is None else _full(connection, record, bounds)
            if full is not None:
                return full
            asked = {"b_tenant": record.tenant, "b_ek": record.ek_fingerprint}
            connection.execute(_SURPLUS, asked)
            connection.execute(insert(enrollment), row)
            # Last: whoever else brings this token waits for its row until the commit.
            if spends and not _paid(connection, record):
                raise _UnpaidError
            return Filed.KEPT

        try:
            return await self._backend.write(run)
        except _UnpaidError:
            return Filed.UNPAID

    async def enrollment(self, enrollment_id: str) -> EnrollmentRecord | None:
        """An enrolment, expired or not."""
        row = await self._first(_BY_ID, {"id": enrollment_id})
        return None if row is None else rows.enrollment_record(row)

    async def complete_enrollment(
        self, enrollment_id: str, attester_id: str, now: datetime
    ) -> AttesterRecord | None:
        """Consume an offered enrolment and bind its AK; None when it is gone, has expired, or waits for a person."""
        at, insert_into = values.micros(now), self._backend.insert

        def run(connection: Connection) -> Row | None:
            consumed = connection.execute(_CONSUME, {"b_id": enrollment_id, "b_at": at}).first()
            if consumed is None:
                return None
            record = rows.enrollment_record(consumed)
            agreed = record.replaces is not None
            binding = Binding(
                insert_into,
                attester_id,
                at,
                actor="inventory",
                reason="the inventory lists the new endorsement key for this machine",
                authority=agreed or record.token_id is not None,
                may_return=agreed,
            )
            bound = binding.run(connection, record)
            told = _told(EventKind.ATTESTER_ENROLLED, record, bound, now)
            event_log.append(connection, told)
            audit_log.append(connection, _enrolled(record, told))
            return connection.execute(_STATE, {"key": bound}).one()

        row = await self._backend.write(run)
        return None if row is None else rows.attester_record(row[statements.STATE_ATTESTER])

    async def await_approval(
        self, enrollment_id: str, waits_for: str, now: datetime, expires_at: datetime
    ) -> EnrollmentRecord | None:
        """Turn an offered enrolment into a pending one; see `EnrollmentStore.await_approval`."""
        at, until, insert_into = values.micros(now), values.micros(expires_at), self._backend.insert

        def run(connection: Connection) -> Row | None:
            offered = connection.execute(
                delete(enrollment)
                .where(
                    enrollment.c.id == enrollment_id,
                    enrollment.c.expires_at > at,
                    enrollment.c.status == EnrollmentStatus.OFFERED.value,
                )
                .returning(*rows.ENROLLMENT_COLUMNS)
            ).first()
            if offered is None:
                return None
            row = dict(zip((column.name for column in rows.ENROLLMENT_COLUMNS), offered, strict=True)) | {
                "status": EnrollmentStatus.PENDING.value,
                "waits_for": waits_for,
                "replaces": None,
                "activated_at": at,
                "expires_at": until,
            }
            new = insert_into(enrollment).values(row)
            pending = connection.execute(
                new.on_conflict_do_update(
                    index_elements=["tenant", "ek_fingerprint", "ak_name"],
                    index_where=_IS_PENDING,
                    set_={name: new.excluded[name] for name in _SHOWN_ANEW},
                ).returning(*rows.ENROLLMENT_COLUMNS)
            ).one()
            record = rows.enrollment_record(pending)
            if record.id == enrollment_id:  # one that waits already was told of when it began to
                event_log.append(connection, _told(EventKind.ENROLLMENT_PENDING, record, None, now))
            return pending

        row = await self._backend.write(run)
        return None if row is None else rows.enrollment_record(row)

    async def decide_enrollment(self, tenant: str, decision: Decision) -> EnrollmentRecord | None:
        """Approve or refuse, once; see `EnrollmentStore.decide_enrollment`."""
        insert_into = self._backend.insert
        row = await self._backend.write(lambda connection: _decide(connection, insert_into, tenant, decision))
        return None if row is None else rows.enrollment_record(row)

    async def list_enrollments(
        self, tenant: str, status: EnrollmentStatus, *, now: datetime, cursor: str | None, limit: int
    ) -> Page[EnrollmentRecord]:
        """Oldest first.

        Raises:
            EvidenceError: `malformed-request` for a cursor of another listing or a limit out of range.
        """
        if not 1 <= limit <= _MAX_PAGE:
            raise EvidenceError(
                Reason.MALFORMED_REQUEST, f"a page of {limit} is not within 1 and {_MAX_PAGE}"
            )
        query = select(*rows.ENROLLMENT_COLUMNS).where(
            enrollment.c.tenant == tenant,
            enrollment.c.status == status.value,
            enrollment.c.expires_at > values.micros(now),
        )
        listing = ("enrollments", status.value)
        if cursor is not None:
            moment, _, last = decode_cursor(cursor, tenant, listing).partition(".")
            made, key = enrollment.c.created_at, enrollment.c.id
            query = query.where(or_(made > int(moment), and_(made == int(moment), key > last)))
        ordered = query.order_by(enrollment.c.created_at, enrollment.c.id)
        found = [rows.enrollment_record(row) for row in await self._backend.rows(ordered.limit(limit + 1))]
        items, following = tuple(found[:limit]), None
        if len(found) > limit:
            after = f"{values.micros(items[-1].created_at)}.{items[-1].id}"
            following = encode_cursor(after, tenant, listing)
        return Page(items=items, cursor=following)

    async def enrollments_of_ek(
        self, tenant: str, ek_fingerprint: bytes, now: datetime
    ) -> Sequence[EnrollmentRecord]:
        """Pending and decided ones with this EK that have not expired."""
        asked = {"tenant": tenant, "ek": ek_fingerprint, "at": values.micros(now)}
        found = await self._backend.rows(_OF_EK, asked)
        return tuple(map(rows.enrollment_record, found))

    async def has_offer(
        self, tenant: str, ek_fingerprint: bytes, ak_name: bytes, token_id: str, now: datetime
    ) -> bool:
        """Whether a challenge for these keys is out that a use of this token was spent on."""
        asked = {"tenant": tenant, "ek": ek_fingerprint, "ak": ak_name, "token": token_id}
        return await self._first(_OFFERED, {**asked, "at": values.micros(now)}) is not None

    async def purge_expired(self, now: datetime) -> int:
        """Drop expired enrolments and nonces, in short transactions."""
        at, gone = values.micros(now), 0
        later = nonce_floor.c.dropped_until < at
        await self._change(update(nonce_floor).where(later).values(dropped_until=at))
        for table, key in ((enrollment, enrollment.c.id), (nonce, nonce.c.hash)):
            expired = select(key).where(table.c.expires_at < at).limit(_PURGE_CHUNK)
            dropped = _PURGE_CHUNK
            while dropped == _PURGE_CHUNK:
                dropped = await self._change(delete(table).where(key.in_(expired)))
                gone += dropped
        return gone


_SHOWN_ANEW: Final = (
    "expires_at", "ek_certificate", "ek_issuer", "ek_profile", "endorsed_by", "expected_proof", "identity",
    "source", "waits_for", "activated_at",
)  # fmt: skip
"""What the last request of a machine says that has asked before."""


def _told(kind: EventKind, record: EnrollmentRecord, attester_id: str | None, now: datetime) -> NewEvent:
    detail = {
        "enrollment": record.id,
        "endorsed_by": record.endorsed_by,
        "waits_for": record.waits_for,
        "replaces": record.replaces,
        "ek_sha256": record.ek_fingerprint.hex(),
        "hostname": record.identity.hostname,
        "smbios_uuid": record.identity.smbios_uuid,
    }
    return NewEvent(
        tenant=record.tenant,
        kind=kind,
        subject=attester_id or record.id,
        attester_id=attester_id,
        at=now,
        data={name: value for name, value in detail.items() if value is not None},
    )


def _paid(connection: Connection, record: EnrollmentRecord) -> bool:
    return record.token_id is not None and tokens.spend(
        connection, record.token_id, values.micros(record.created_at)
    )


def _enrolled(record: EnrollmentRecord, told: NewEvent) -> AuditEntry:
    return AuditEntry(
        tenant=record.tenant,
        at=told.at,
        actor=record.token_id or "inventory",
        action=told.kind.value,
        subject=told.subject,
        reason="",
        detail={**told.data, "ak_name": record.ak_name.hex()},
    )


def _full(connection: Connection, record: EnrollmentRecord, bounds: EnrollmentBounds) -> Filed | None:
    waiting = and_(
        enrollment.c.tenant == record.tenant,
        enrollment.c.status.in_(_OPEN),
        enrollment.c.waits_for.is_not(None),
        enrollment.c.expires_at > values.micros(record.created_at),
    )
    same_source = func.count().filter(enrollment.c.source == record.source)
    in_all, of_source = connection.execute(select(func.count(), same_source).where(waiting)).one()
    if bounds.per_source and record.source is not None and of_source >= bounds.per_source:
        return Filed.SOURCE_FULL
    return Filed.TENANT_FULL if in_all >= bounds.per_tenant else None


def _decide(
    connection: Connection, insert_into: statements.InsertInto, tenant: str, decision: Decision
) -> Row | None:
    at = values.micros(decision.at)
    decidable = {EnrollmentStatus.PENDING.value}
    if decision.approved and decision.overrule:
        decidable.add(EnrollmentStatus.REFUSED.value)
    status = EnrollmentStatus.APPROVED if decision.approved else EnrollmentStatus.REFUSED
    mine = (enrollment.c.tenant == tenant, enrollment.c.id == decision.enrollment_id)
    decided = connection.execute(
        update(enrollment)
        .where(*mine, enrollment.c.status.in_(decidable), enrollment.c.expires_at > at)
        .values(
            status=status.value,
            decided_at=at,
            decided_by=decision.actor,
            decision_reason=values.plain_text(decision.reason),
            replaces=decision.replaces,
            expires_at=values.micros(decision.keep_until),
            **({} if decision.ek_profile is None else {"ek_profile": values.json_text(decision.ek_profile)}),
        )
        .returning(*rows.ENROLLMENT_COLUMNS)
    ).first()
    if decided is None:
        return None
    record, bound = rows.enrollment_record(decided), None
    if decision.approved:
        binding = Binding(
            insert_into,
            decision.attester_id,
            at,
            actor=decision.actor,
            reason=decision.reason,
            authority=True,
            may_return=True,
        )
        bound = binding.run(connection, record)
        connection.execute(update(enrollment).where(*mine).values(attester_id=bound))
    entry = _entry(record, decision, bound)
    audit_log.append(connection, entry)
    event_log.append_audited(connection, entry)
    return connection.execute(select(*rows.ENROLLMENT_COLUMNS).where(*mine)).one()


def _entry(record: EnrollmentRecord, decision: Decision, attester_id: str | None) -> AuditEntry:
    detail = {
        "waits_for": record.waits_for,
        "ek_sha256": record.ek_fingerprint.hex(),
        "ak_name": record.ak_name.hex(),
        "smbios_uuid": record.identity.smbios_uuid,
        "hostname": record.identity.hostname,
        "source": record.source,
        "attester": attester_id,
        "replaces": decision.replaces,
        "overruled": decision.overrule or None,
    }
    return AuditEntry(
        tenant=record.tenant,
        at=decision.at,
        actor=decision.actor,
        action="enrollment.approved" if decision.approved else "enrollment.refused",
        subject=record.id,
        reason=decision.reason,
        detail={name: value for name, value in detail.items() if value is not None},
    )
