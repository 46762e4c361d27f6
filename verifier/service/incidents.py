"""Clones and rollbacks that somebody has to resolve: who showed one TPM's state, and which of them goes on.

Proven by a resolution: nothing. It is an operator's word, recorded as such; whoever shows the state that was chosen is
heard from then on, and the next evidence that does not fit it is a new incident.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from verifier.appraisal.lineage import Guest, Incident, IncidentKind, Lineage, kept, machine_of, without
from verifier.errors import NotFoundError, RefusedError
from verifier.ports import AttesterState, Clock, FleetFilter, Page, Store
from verifier.ports_enrollment import AuditEntry
from verifier.reasons import Reason
from verifier.service.recorder import Recorder

ALL: Final = "all"
"""Instead of a guest: every machine with this TPM."""
_GUEST_ID: Final = 8
_ATTEMPTS: Final = 8
_MARKS: Final = {
    IncidentKind.CLONE_SUSPECTED: "s",
    IncidentKind.RATCHET_FOREIGN: "f",
    IncidentKind.ROLLBACK: "r",
    IncidentKind.CLONE_PROVEN: "c",
}


@dataclass(frozen=True, slots=True)
class IncidentView:
    """An open incident. `guests`: with their ids, last seen last."""

    id: str
    state: AttesterState
    incident: Incident
    guests: tuple[tuple[str, Guest], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What to make of an incident.

    Attributes:
        reason: the operator's.
        keep: the guest that goes on: its id, SMBIOS UUID, boot id or host name. None: nobody's state is chosen.
        reenroll: the guest that is not heard until it has enrolled with a new vTPM; or `all`.
    """

    reason: str
    keep: str | None = None
    reenroll: str | None = None


class IncidentService:
    """List and resolve incidents, always within one tenant."""

    def __init__(self, store: Store, recorder: Recorder, clock: Clock) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock

    async def list(self, tenant: str, cursor: str | None, limit: int) -> Page[IncidentView]:
        """One page of open incidents, by attester."""
        page = await self._store.list_attesters(
            tenant, FleetFilter(incident=True), now=self._clock.now(), cursor=cursor, limit=limit
        )
        views = (_view(state) for state in page.items)
        return Page(items=tuple(one for one in views if one is not None), cursor=page.cursor)

    async def get(self, tenant: str, incident_id: str) -> IncidentView:
        """One open incident; raises `NotFoundError`, also when it is another by now."""
        state = await self._store.attester_state(incident_id.rpartition("-")[0].removeprefix("inc-"))
        view = None if state is None or state.attester.tenant != tenant else _view(state)
        if view is None or view.id != incident_id:
            raise NotFoundError("open incident", incident_id)
        return view

    async def resolve(
        self, tenant: str, incident_id: str, resolution: Resolution, actor: str
    ) -> AttesterState:
        """Say which guest goes on and which has to enrol anew, once.

        Raises:
            NotFoundError: no such incident, or it was resolved, or has become another one meanwhile.
            RefusedError: `malformed-request`: nothing chosen, or a guest that is not one of the incident's, or several.
        """
        for _ in range(_ATTEMPTS):
            view = await self.get(tenant, incident_id)
            line, detail = _resolved(view, resolution)
            entry = AuditEntry(
                tenant=tenant,
                at=self._clock.now(),
                actor=actor,
                action="incident.resolved",
                subject=incident_id,
                reason=resolution.reason,
                detail={
                    "attester": view.state.attester.id,
                    "kind": view.incident.kind.value,
                    "since": view.incident.since.isoformat(),
                    **detail,
                },
            )
            attester_id = view.state.attester.id
            if await self._recorder.lineage_resolved(attester_id, view.state.position, line, entry):
                state = await self._store.attester_state(attester_id)
                if state is None:
                    raise NotFoundError("attester", attester_id)
                return state
        raise RefusedError(Reason.CONFLICT, "the attester keeps attesting while this is decided; try again")


def _view(state: AttesterState) -> IncidentView | None:
    line = state.lineage
    if line is None or line.incident is None:
        return None
    since = (line.incident.since - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    # A graver kind is another incident: what was decided of the one seen before must not settle it.
    return IncidentView(
        id=f"inc-{state.attester.id}-{round(since * 1_000_000):x}{_MARKS[line.incident.kind]}",
        state=state,
        incident=line.incident,
        guests=tuple((guest_id(guest), guest) for guest in line.guests),
    )


def guest_id(guest: Guest) -> str:
    """Tells the guests of one incident apart, and stays the same while they are."""
    key = f"{machine_of(guest.smbios_uuid)}\n{guest.boot_id}" + ("\nparted" if guest.parted else "")
    return hashlib.sha256(key.encode()).hexdigest()[:_GUEST_ID]


def _resolved(view: IncidentView, resolution: Resolution) -> tuple[Lineage, dict[str, object]]:
    line = view.state.lineage or Lineage()
    keep = None if resolution.keep is None else _guest(view, resolution.keep, "keep")
    if resolution.reenroll == ALL:
        if keep is not None:
            raise _malformed("`reenroll` says all, and `keep` names one of them")
        return without(line, None), {"reenroll": ALL}
    away = None if resolution.reenroll is None else _guest(view, resolution.reenroll, "reenroll")
    if keep is None and away is None:
        raise _malformed("say which guest to `keep`, or which has to `reenroll`")
    if keep is not None and away is not None and machine_of(keep.smbios_uuid) == machine_of(away.smbios_uuid):
        raise _malformed(
            "both guests say that they have the same SMBIOS UUID, so the verifier cannot tell them apart: switch one off and"
            " `keep` the other, or let `all` enrol anew"
        )
    if keep is not None:
        line = kept(line, keep, _claimed(view))
    elif away is not None:
        if away.smbios_uuid is None:
            raise _malformed(
                "this guest says no SMBIOS UUID, so it cannot be told from others: `keep` one, or say `all`"
            )
        line = without(line, away.smbios_uuid)
    return line, _detail(keep, away, line)


def _claimed(view: IncidentView) -> set[str]:
    shown = {guest.smbios_uuid for _, guest in view.guests if guest.smbios_uuid is not None}
    return shown | view.state.attester.smbios_uuids


def _detail(keep: Guest | None, away: Guest | None, line: Lineage) -> dict[str, object]:
    detail: dict[str, object] = {"refused": list(line.refused)}
    for name, guest in (("keep", keep), ("reenroll", away)):
        if guest is not None:
            detail[name] = {
                "smbios_uuid": guest.smbios_uuid,
                "boot_id": guest.boot_id,
                "hostname": guest.hostname,
            }
    return detail


def _guest(view: IncidentView, named: str, field: str) -> Guest:
    """The guest that is named, by what is surest first. A machine seen in several boots is meant as it was seen last."""
    guests, machine = view.guests, machine_of(named)
    several = len({machine_of(guest.smbios_uuid) for _, guest in guests}) > 1
    for found in (
        [guest for key, guest in guests if key == named],
        [guest for _, guest in guests if machine is not None and machine_of(guest.smbios_uuid) == machine],
        [guest for _, guest in guests if guest.boot_id == named],
        [guest for _, guest in guests if guest.hostname == named],
    ):
        if len(found) == 1 or (found and several and _one_machine(found)):
            return found[-1]
        if found:
            ids = ", ".join(guest_id(guest) for guest in found)
            raise _malformed(f"`{field}`: {named!r} is several guests of this incident; name one of {ids}")
    known = ", ".join(f"{key} ({guest.hostname}, {guest.smbios_uuid})" for key, guest in guests)
    raise _malformed(f"`{field}`: {named!r} is none of the guests {known}")


def _one_machine(guests: list[Guest]) -> bool:
    return len({machine_of(guest.smbios_uuid) for guest in guests}) == 1


def _malformed(detail: str) -> RefusedError:
    return RefusedError(Reason.MALFORMED_REQUEST, detail)
