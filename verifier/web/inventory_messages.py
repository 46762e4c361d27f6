"""Messages about inventories and the machines in them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from verifier.appraisal.correlate import Correlation
from verifier.appraisal.inventory import InventoryEvent, InventoryMachine, MachineRef
from verifier.ports import Page
from verifier.service.inventory import Standing
from verifier.web.messages import Body, InventoryOpinion, Limit
from verifier.web.wire_codec import rfc3339

SourceName = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
MachineCursor = Annotated[str, Meta(min_length=1, max_length=2048, pattern="^[A-Za-z0-9_-]+$")]
EventCursor = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[0-9a-f]+[.][0-9]+$")]


class InventorySource(Body, frozen=True):
    """One source and how it stands."""

    name: str
    stale: bool
    """It was not read for too long: nothing rests on what it says."""
    machines: int
    warnings: list[str]
    """What is missing although it can be read."""
    synced_at: str | None = None
    """When its content was last known to be whole and current; absent: never."""
    problem: str | None = None
    """Why it cannot be read now."""


class InventoryReply(Body, frozen=True):
    """Every source, in the order of configuration; none: no inventory is configured."""

    sources: list[InventorySource]
    max_age_seconds: int
    """A source last current longer ago than this is stale."""


class InventoryMachinesQuery(Body, frozen=True):
    """Which machines."""

    search: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    """Part of a name, id, UUID, EK fingerprint (hex) or label (`key=value`), in any case."""
    source: SourceName | None = None
    cursor: MachineCursor | None = None
    limit: Limit = 100


class MachineSnapshot(Body, frozen=True):
    """A snapshot of a machine."""

    id: str
    name: str
    created_at: str
    current: bool
    """The machine's present state descends from it directly."""


class Machine(Body, frozen=True):
    """A machine as its source describes it. Nothing of it is proven."""

    key: str
    """Source and id in it: `north/vm-42`."""
    name: str
    stale: bool
    """Its source is."""
    ek_sha256: list[str]
    """SHA-256 of the SubjectPublicKeyInfo of each endorsement key, hex."""
    snapshots: list[MachineSnapshot]
    labels: dict[str, str]
    problems: list[str]
    """What could not be read of it."""
    smbios_uuid: str | None = None
    instance_uuid: str | None = None
    has_vtpm: bool | None = None
    """Absent: the source does not say."""
    secure_boot: bool | None = None
    """As configured, which is not what booted; absent: the source does not say."""
    encrypted_key_id: str | None = None
    vcenter: str | None = None
    template: bool = False


class InventoryMachinesReply(Body, frozen=True):
    """One page; `cursor` leads to the next and is absent on the last."""

    machines: list[Machine]
    cursor: str | None = None


class InventoryEventsQuery(Body, frozen=True):
    """From where on."""

    since: EventCursor | None = None
    """Cursor of an earlier answer; absent: everything that is kept."""


class MachineName(Body, frozen=True):
    """A machine as an event names it."""

    key: str
    name: str


class MachineEvent(Body, frozen=True):
    """Something that happened to a machine that matters to its identity."""

    id: str
    kind: Literal[
        "added",
        "removed",
        "cloned",
        "instance-uuid-changed",
        "uuid-changed",
        "snapshot-reverted",
        "vtpm-replaced",
    ]
    at: str
    machine: MachineName
    origin: MachineName | None = None
    """What it is a copy of."""
    before: str | None = None
    after: str | None = None


class InventoryEventsReply(Body, frozen=True):
    """Events, oldest first, and the cursor to ask with next time."""

    events: list[MachineEvent]
    cursor: str | None = None
    """Absent: no inventory is configured."""


def source_message(standing: Standing) -> InventorySource:
    """One source."""
    status = standing.status
    return InventorySource(
        name=status.name,
        stale=standing.stale,
        machines=status.machines,
        synced_at=None if status.synced_at is None else rfc3339(status.synced_at),
        problem=status.problem,
        warnings=list(status.warnings),
    )


def machines_message(page: Page[InventoryMachine], stale: frozenset[str]) -> InventoryMachinesReply:
    """A page of machines; `stale` names the sources that are."""
    return InventoryMachinesReply(
        machines=[_machine(one, stale=one.key.source in stale) for one in page.items], cursor=page.cursor
    )


def _machine(machine: InventoryMachine, *, stale: bool) -> Machine:
    return Machine(
        key=str(machine.key),
        name=machine.name,
        stale=stale,
        smbios_uuid=machine.smbios_uuid,
        instance_uuid=machine.instance_uuid,
        ek_sha256=sorted(one.hex() for one in machine.ek_fingerprints),
        has_vtpm=machine.has_vtpm,
        secure_boot=machine.secure_boot,
        encrypted_key_id=machine.encrypted_key_id,
        snapshots=[
            MachineSnapshot(id=one.id, name=one.name, created_at=rfc3339(one.created), current=one.current)
            for one in machine.snapshots
        ],
        vcenter=machine.vcenter,
        template=machine.template,
        labels=dict(machine.labels),
        problems=list(machine.problems),
    )


def event_message(event: InventoryEvent) -> MachineEvent:
    """One event."""
    return MachineEvent(
        id=event.id,
        kind=event.kind.value,
        at=rfc3339(event.at),
        machine=_name(event.machine),
        origin=None if event.origin is None else _name(event.origin),
        before=event.before,
        after=event.after,
    )


def _name(ref: MachineRef) -> MachineName:
    return MachineName(key=str(ref.key), name=ref.name)


def opinion_message(found: Correlation) -> InventoryOpinion:
    """What the inventories say of an attester."""
    return InventoryOpinion(
        outcome=found.outcome.value,
        explanation=found.explanation,
        machine=None if found.machine is None else str(found.machine.key),
        others=[str(one.key) for one in found.others],
        last_known=None if found.last_known is None else found.last_known.value,
        stale_sources=list(found.stale_sources),
    )
