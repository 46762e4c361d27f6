"""Whom a tenant trusts: anchor sets that operators import and remove, beside those the settings name.

What is trusted is read at each enrolment (one small query), so that a change counts at once and on every
replica; sets are immutable, so that a parsed one is kept by its digest.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from verifier.crypto.anchors import AnchorCollection
from verifier.errors import NotFoundError, RefusedError, StoredDataDamaged
from verifier.ports import Clock, Store
from verifier.ports_trust import AnchorAssignment, AnchorPurpose, AnchorSetRecord, ReadAnchors
from verifier.reasons import Reason
from verifier.service.anchor_import import FINGERPRINT, ImportPlan, ImportRequest, TrustedSet, plan_import
from verifier.service.anchor_sets import MAX_SET, AnchorSet, TrustedAnchors, join
from verifier.service.recorder import Recorder

_SETTINGS: Final = "settings"
_SETS: Final = 64
_JOINED: Final = 16
_ATTEMPTS: Final = 8

Key = tuple[tuple[bytes, frozenset[AnchorPurpose]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What is trusted no longer: a set (`sha256` None), or one anchor of it."""

    set_name: str
    digest: bytes
    sha256: str | None


class TrustService:
    """Import, list, remove, and say what is trusted.

    Args:
        configured: sets the settings name, by purpose; read at start.
        read: reads anchors out of uploaded bytes.
    """

    def __init__(
        self,
        *,
        store: Store,
        recorder: Recorder,
        clock: Clock,
        configured: Mapping[AnchorPurpose, AnchorSet],
        read: ReadAnchors,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._read = read
        self._configured = tuple(_configured(purpose, one) for purpose, one in configured.items() if one)
        self._sets: OrderedDict[bytes, AnchorSet] = OrderedDict()
        self._joined: OrderedDict[Key, TrustedAnchors] = OrderedDict()

    async def current(self, tenant: str) -> TrustedAnchors:
        """All that is trusted now."""
        sets = await self.sets(tenant)
        key = tuple((one.digest, one.purposes) for one in sets)
        if key not in self._joined:
            self._joined[key] = join((one.content, one.purposes) for one in sets)
            if len(self._joined) > _JOINED:
                self._joined.popitem(last=False)
        return self._joined[key]

    async def sets(self, tenant: str) -> tuple[TrustedSet, ...]:
        """Every set that is trusted: those of the settings, then the others by name."""
        assignments = await self._store.anchor_assignments(tenant)
        managed = [await self._load(assignment) for assignment in assignments]
        return (*self._configured, *managed)

    async def get(self, tenant: str, name: str) -> TrustedSet:
        """One set by name; raises `NotFoundError`."""
        for one in await self.sets(tenant):
            if one.name == name:
                return one
        raise NotFoundError("anchor set", name)

    async def import_file(
        self, tenant: str, request: ImportRequest, data: bytes, actor: str, *, dry_run: bool = False
    ) -> ImportPlan:
        """Trust what is in the bytes of one file or archive; see `import_found`.

        Raises:
            MalformedInputError: an archive that is damaged or expands beyond bounds.
        """
        found = await asyncio.to_thread(self._read, request.source, data)
        return await self.import_found(tenant, request, found, actor, dry_run=dry_run)

    async def import_found(
        self,
        tenant: str,
        request: ImportRequest,
        found: AnchorCollection,
        actor: str,
        *,
        dry_run: bool = False,
    ) -> ImportPlan:
        """Trust these anchors under a name from now on, on every replica; with `dry_run` only say what would change.

        Raises:
            RefusedError: as `plan_import`; `anchors-refused` too for more than a set can hold, `conflict` where
                others change the set at this moment.
        """
        before = next((one for one in await self.sets(tenant) if one.name == request.name), None)
        plan = plan_import(request, found, before)
        now = self._clock.now()
        record = self._record(tenant, plan.content, now)
        assignment = AnchorAssignment(
            tenant=tenant,
            name=plan.name,
            digest=record.digest,
            purposes=plan.purposes,
            source=plan.source,
            assigned_at=now,
            assigned_by=actor,
        )
        if dry_run:
            return plan
        if not await self._recorder.anchors_assigned(
            record, assignment, count=len(plan.content.anchors), instead_of=plan.replaced
        ):
            raise RefusedError(Reason.CONFLICT, f"anchor set {plan.name!r} was changed meanwhile; look again")
        self._keep(record.digest, plan.content)
        return plan

    async def remove(self, tenant: str, key: str, actor: str) -> tuple[Removed, ...]:
        """Trust no longer: a set by its name, or an anchor by its fingerprint in whichever sets it is.

        Raises:
            NotFoundError: no set of this name and no anchor of this fingerprint.
            RefusedError: `conflict`: the settings name it, or others change the set at this moment;
                `anchors-refused`: the beginning of a fingerprint that fits more than one anchor.
        """
        assignments = await self._store.anchor_assignments(tenant)
        for assignment in assignments:
            if assignment.name == key:
                await self._unassign(assignment, actor)
                return (Removed(set_name=key, digest=assignment.digest, sha256=None),)
        if any(one.name == key for one in self._configured):
            raise _named_by_settings(key)
        wanted = key.lower().replace(":", "")
        if not FINGERPRINT.match(wanted):
            raise NotFoundError("anchor set", key)
        return await self._remove_anchor(tenant, wanted, actor)

    async def _remove_anchor(self, tenant: str, wanted: str, actor: str) -> tuple[Removed, ...]:
        sets = await self.sets(tenant)
        found = {
            anchor.fingerprint
            for one in sets
            for anchor in one.content.anchors
            if anchor.fingerprint.hex().startswith(wanted)
        }
        if not found:
            raise NotFoundError("trust anchor", wanted)
        if len(found) > 1:
            raise RefusedError(Reason.ANCHORS_REFUSED, f"{wanted} is the beginning of {len(found)} anchors")
        fingerprint = found.pop()
        holding = [one for one in sets if any(a.fingerprint == fingerprint for a in one.content.anchors)]
        for one in holding:
            if one.assignment is None:
                raise _named_by_settings(fingerprint.hex())
        return tuple([await self._shrink(one, fingerprint, actor) for one in holding])

    async def _shrink(self, one: TrustedSet, fingerprint: bytes, actor: str) -> Removed:
        """Replace a set by one without the anchor; tried again where another changed the set meanwhile."""
        removed = Removed(set_name=one.name, digest=one.digest, sha256=fingerprint.hex())
        for _ in range(_ATTEMPTS):
            if one.assignment is None:
                break
            rest = one.content.without(fingerprint)
            if not len(rest.anchors):
                await self._unassign(one.assignment, actor)
                return removed
            now = self._clock.now()
            record = self._record(one.assignment.tenant, rest, now)
            assignment = replace(one.assignment, digest=record.digest, assigned_at=now, assigned_by=actor)
            if await self._recorder.anchors_assigned(
                record, assignment, count=len(rest.anchors), instead_of=one.digest
            ):
                return removed
            one = await self.get(one.assignment.tenant, one.name)
        raise RefusedError(Reason.CONFLICT, f"anchor set {one.name!r} is being changed by others; try again")

    async def _unassign(self, assignment: AnchorAssignment, actor: str) -> None:
        if not await self._recorder.anchors_unassigned(assignment, actor, self._clock.now()):
            raise RefusedError(
                Reason.CONFLICT, f"anchor set {assignment.name!r} was changed meanwhile; look again"
            )

    def _record(self, tenant: str, content: AnchorSet, now: datetime) -> AnchorSetRecord:
        digest, encoded = content.encode()
        if len(encoded) > MAX_SET:
            raise RefusedError(Reason.ANCHORS_REFUSED, f"{len(encoded)} bytes; a set has at most {MAX_SET}")
        return AnchorSetRecord(tenant=tenant, digest=digest, content=encoded, created_at=now)

    async def _load(self, assignment: AnchorAssignment) -> TrustedSet:
        content = self._sets.get(assignment.digest)
        if content is None:
            record = await self._store.anchor_set(assignment.tenant, assignment.digest)
            if record is None:
                raise StoredDataDamaged(
                    f"anchor set {assignment.digest.hex()} ({assignment.name}) is missing"
                )
            # A vendors' collection has more than a thousand certificates: not on the event loop.
            content = await asyncio.to_thread(AnchorSet.decode, record.content)
            self._keep(assignment.digest, content)
        return _trusted(assignment, content)

    def _keep(self, digest: bytes, content: AnchorSet) -> None:
        self._sets[digest] = content
        if len(self._sets) > _SETS:
            self._sets.popitem(last=False)


def parse_purposes(names: Iterable[str]) -> frozenset[AnchorPurpose]:
    """Purposes by name; raises `RefusedError`."""
    try:
        return frozenset(AnchorPurpose(name) for name in names)
    except ValueError as error:
        known = ", ".join(purpose.value for purpose in AnchorPurpose)
        raise RefusedError(Reason.ANCHORS_REFUSED, f"{error}; purposes are {known}") from None


def _configured(purpose: AnchorPurpose, one: AnchorSet) -> TrustedSet:
    return TrustedSet(
        name=f"{_SETTINGS}:{purpose.value}",
        digest=one.encode()[0],
        purposes=frozenset({purpose}),
        content=one,
        assignment=None,
        source=_SETTINGS,
    )


def _trusted(assignment: AnchorAssignment, content: AnchorSet) -> TrustedSet:
    return TrustedSet(
        name=assignment.name,
        digest=assignment.digest,
        purposes=assignment.purposes,
        content=content,
        assignment=assignment,
        source=assignment.source,
    )


def _named_by_settings(what: str) -> RefusedError:
    return RefusedError(
        Reason.CONFLICT, f"{what} comes from files the settings name; change those and restart the service"
    )
