"""Enrolments that wait for a person: what speaks for and against them, and the decision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from verifier.appraisal.correlate import Correlation, Outcome
from verifier.appraisal.lineage import machine_of
from verifier.errors import NotFoundError, RefusedError, StateMovedError
from verifier.ports import AttesterState, Clock, Lifecycle, Page, Random, Store
from verifier.ports_enrollment import AuditEntry, Decision, EnrollmentRecord, EnrollmentStatus
from verifier.reasons import Reason
from verifier.service.ids import new_id
from verifier.service.known import Known, KnownMachines
from verifier.service.methods import Method
from verifier.service.recorder import Recorder

MAX_REASON: Final = 1_000
"""Characters of what an operator writes."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something on record that does not fit this enrolment. `subject`: the attester or enrolment concerned."""

    reason: Reason
    message: str
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentView:
    """An enrolment as an operator needs to see it.

    Attributes:
        record: what the machine brought and, by its proof, is known to hold.
        conflicts: as of now.
        candidates: ids of attesters whose place it could take.
    """

    record: EnrollmentRecord
    conflicts: tuple[Conflict, ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """How to let a machine in.

    Attributes:
        reason: the operator's.
        replaces: whose place it takes; None: that of the only candidate, if it waits as a replacement.
        as_new: it takes nobody's place.
        overrule: although it was refused before.
    """

    reason: str
    replaces: str | None = None
    as_new: bool = False
    overrule: bool = False


class ApprovalService:
    """List, approve and refuse enrolments, always within one tenant."""

    def __init__(
        self,
        *,
        store: Store,
        recorder: Recorder,
        clock: Clock,
        random: Random,
        known: KnownMachines,
        keep: timedelta,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._random = random
        self._known = known
        self._keep = keep

    async def list(
        self, tenant: str, status: EnrollmentStatus, cursor: str | None, limit: int
    ) -> Page[EnrollmentView]:
        """One page, oldest first. Conflicts are worked out for what is pending."""
        page = await self._store.list_enrollments(
            tenant, status, now=self._clock.now(), cursor=cursor, limit=limit
        )
        return Page(items=tuple([await self._view(record) for record in page.items]), cursor=page.cursor)

    async def get(self, tenant: str, enrollment_id: str) -> EnrollmentView:
        """One enrolment whose keys are proven; raises `NotFoundError`."""
        return await self._view(await self._record(tenant, enrollment_id))

    async def approve(
        self, tenant: str, enrollment_id: str, approval: Approval, actor: str
    ) -> EnrollmentView:
        """Let the machine in: exactly the EK and AK that were proven, once, whichever replica is asked.

        Raises:
            NotFoundError: no such enrolment, or its keys are not proven, or it has expired.
            RefusedError: `conflict`: decided already, or it must be said whose place it takes; `attester-revoked`.
        """
        record = await self._record(tenant, enrollment_id)
        known = await self._known.look(tenant, record.ek_fingerprint, record.identity)
        known.refuse()
        replaces = _place_of(record, known, approval)
        return await self._decide(
            record, actor, approval.reason, approved=True, replaces=replaces, overrule=approval.overrule
        )

    async def refuse(self, tenant: str, enrollment_id: str, reason: str, actor: str) -> EnrollmentView:
        """Keep the machine out; raises `NotFoundError`, and `RefusedError` (`conflict`) when decided already."""
        record = await self._record(tenant, enrollment_id)
        return await self._decide(record, actor, reason, approved=False)

    async def audit(
        self, tenant: str, subject: str | None, before: int | None, limit: int
    ) -> tuple[AuditEntry, ...]:
        """What people decided, newest first."""
        return tuple(await self._store.list_audit(tenant, subject=subject, before=before, limit=limit))

    async def _decide(
        self,
        record: EnrollmentRecord,
        actor: str,
        reason: str,
        *,
        approved: bool,
        replaces: str | None = None,
        overrule: bool = False,
    ) -> EnrollmentView:
        now = self._clock.now()
        decision = Decision(
            enrollment_id=record.id,
            approved=approved,
            at=now,
            keep_until=now + self._keep,
            actor=actor,
            reason=reason,
            attester_id=new_id("att", self._random),
            replaces=replaces,
            overrule=overrule,
            ek_profile=_approved_profile(record) if approved else None,
        )
        try:
            decided = await self._recorder.enrollment_decided(record.tenant, decision)
        except StateMovedError as error:
            raise RefusedError(Reason.CONFLICT, f"{error}; nothing was decided") from error
        if decided is None:
            raise _decided_already(await self._record(record.tenant, record.id))
        return await self._view(decided)

    async def _record(self, tenant: str, enrollment_id: str) -> EnrollmentRecord:
        """Of another tenant, unproven or expired: it does not exist."""
        record = await self._store.enrollment(enrollment_id)
        if (
            record is None
            or record.tenant != tenant
            or record.status is EnrollmentStatus.OFFERED
            or self._clock.now() >= record.expires_at
        ):
            raise NotFoundError("enrollment", enrollment_id)
        return record

    async def _view(self, record: EnrollmentRecord) -> EnrollmentView:
        if record.status is not EnrollmentStatus.PENDING:
            return EnrollmentView(record=record, conflicts=(), candidates=())
        known = await self._known.look(record.tenant, record.ek_fingerprint, record.identity)
        found = await self._known.ask(record.ek_fingerprint, record.identity.smbios_uuid)
        same_ek = await self._store.enrollments_of_ek(record.tenant, record.ek_fingerprint, self._clock.now())
        conflicts = [*_of_ek(record, known), *_of_uuid(known), *_of_inventory(found)]
        conflicts += [
            Conflict(Reason.CONFLICT, f"enrolment {one.id} asks with the same EK for another AK", one.id)
            for one in same_ek
            if one.id != record.id and one.status is EnrollmentStatus.PENDING
        ]
        return EnrollmentView(
            record=record,
            conflicts=tuple(conflicts),
            candidates=tuple(one.attester.id for one in known.namesakes) if known.is_replacement else (),
        )


def _approved_profile(record: EnrollmentRecord) -> dict[str, object]:
    """With the approval among the methods that let the machine in."""
    held = record.ek_profile.get("methods")
    methods = [*(held if isinstance(held, list) else []), Method.APPROVE.value]
    return {**record.ek_profile, "methods": list(dict.fromkeys(methods))}


def _place_of(record: EnrollmentRecord, known: Known, approval: Approval) -> str | None:
    """Whose place it takes, as the operator says, or as it can only be."""
    if approval.as_new and approval.replaces is not None:
        raise RefusedError(
            Reason.MALFORMED_REQUEST, "`as_new` takes nobody's place, and `replaces` names one"
        )
    candidates = tuple(one.attester.id for one in known.namesakes) if known.is_replacement else ()
    if approval.replaces is not None:
        if approval.replaces not in candidates:
            named = ", ".join(candidates) or "nobody"
            raise RefusedError(
                Reason.CONFLICT, f"{approval.replaces} is not whose place this machine could take ({named})"
            )
        return approval.replaces
    if approval.as_new or not candidates:
        return None
    if len(candidates) > 1 or record.waits_for != Reason.IDENTITY_REPLACED.value:
        raise RefusedError(
            Reason.CONFLICT,
            f"its SMBIOS UUID is also known of {', '.join(candidates)}: say whose place it takes (`replaces`), or that it"
            " takes nobody's (`as_new`)",
        )
    return candidates[0]


def _decided_already(record: EnrollmentRecord) -> RefusedError:
    when = "" if record.decided_at is None else f" at {record.decided_at:%Y-%m-%dT%H:%M:%SZ}"
    return RefusedError(
        Reason.CONFLICT, f"enrolment {record.id} was {record.status.value} by {record.decided_by}{when}"
    )


def _of_ek(record: EnrollmentRecord, known: Known) -> Iterator[Conflict]:
    if known.attester is None:
        return
    attester = known.attester.attester
    if attester.lifecycle is Lifecycle.REVOKED:
        yield Conflict(Reason.ATTESTER_REVOKED, f"attester {attester.id} of this EK was revoked", attester.id)
    if attester.lifecycle is Lifecycle.RETIRED:
        yield Conflict(
            Reason.IDENTITY_REPLACED,
            f"attester {attester.id} had this EK until {attester.replaced_by} took its place",
            attester.id,
        )
    machine = machine_of(record.identity.smbios_uuid)
    machines = {machine_of(uuid) for uuid in attester.smbios_uuids} - {None}
    if machine is not None and machines and machine not in machines:
        uuids = ", ".join(sorted(attester.smbios_uuids))
        yield Conflict(
            Reason.CLONE_SUSPECTED,
            f"attester {attester.id} has this EK and is known with another SMBIOS UUID ({uuids})",
            attester.id,
        )


def _of_uuid(known: Known) -> Iterator[Conflict]:
    for one in known.namesakes:
        yield Conflict(Reason.IDENTITY_REPLACED, _namesake_text(one), one.attester.id)


def _namesake_text(one: AttesterState) -> str:
    name = f" ({one.attester.identity.hostname})" if one.attester.identity.hostname else ""
    seen = (
        "never attested"
        if one.latest is None
        else f"attested last at {one.latest.judged_at:%Y-%m-%dT%H:%M:%SZ}"
    )
    return f"attester {one.attester.id}{name} is known with this SMBIOS UUID and another EK; it {seen}"


_FITS: Final = frozenset({Outcome.MATCH, Outcome.EK_ONLY, Outcome.UNKNOWN})


def _of_inventory(found: Correlation | None) -> Iterator[Conflict]:
    if found is not None and found.outcome not in _FITS:
        yield Conflict(Reason.INVENTORY_DISAGREES, found.explanation)
