"""Messages about inventories and the machines in them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from verifier.appraisal.correlate import Correlation
from verifier.appraisal.inventory import InventoryMachine, MachineRef
from verifier.ports import AttesterRecord, Page
from verifier.ports_inventory import KeptEvent
from verifier.service.inventory import Standing
from verifier.service.inventory_report import GuestView, MachineView
from verifier.web.messages import Before, Body, InventoryOpinion, Limit
from verifier.web.wire_codec import rfc3339

SourceName = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
MachineCursor = Annotated[str, Meta(min_length=1, max_length=2048, pattern="^[A-Za-z0-9_-]+$")]
KindName = Literal[
    "added",
    "removed",
    "cloned",
    "instance-uuid-changed",
    "uuid-changed",
    "snapshot-reverted",
    "vtpm-replaced",
]
OutcomeName = Literal[
    "match",
    "ek-only",
    "ek-of-another-machine",
    "ek-on-several-machines",
    "uuid-known-ek-unknown",
    "ek-not-listed",
    "unknown",
    "inventory-stale",
]
Uuid = Annotated[str, Meta(min_length=36, max_length=36)]


class SyncProgress(Body, frozen=True):
    """How many machines were read, of those that have to be."""

    done: int
    total: int


class InventorySource(Body, frozen=True):
    """One source and how it stands."""

    name: str
    stale: bool
    """It was not read for too long: nothing rests on what it says."""
    machines: int
    warnings: list[str]
    """What is missing although it can be read."""
    kind: Literal["vsphere", "file"]
    place: str
    """Host, or path."""
    with_vtpm: int
    """Machines that have a vTPM, or list an endorsement key."""
    failures: int
    """How often it could not be read, since this process began."""
    synced_at: str | None = None
    """When its content was last known to be whole and current; absent: never."""
    problem: str | None = None
    """Why it cannot be read now."""
    read_at: str | None = None
    """When this process last read every machine, changed or not."""
    progress: SyncProgress | None = None
    """Present while machines are being read."""


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
    ek_since: str | None = None
    """Since when it has been listed with exactly these keys, as far as is known."""
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
    """Which events."""

    uuid: Uuid | None = None
    """Only of machines that have this instance UUID or SMBIOS UUID now."""
    kind: KindName | None = None
    before: Before | None = None
    """Only what was kept before this sequence."""
    limit: Limit = 100


class MachineName(Body, frozen=True):
    """A machine as an event names it."""

    key: str
    name: str


class MachineEvent(Body, frozen=True):
    """Something that happened to a machine that matters to its identity."""

    sequence: int
    """In the order in which events came to be known."""
    id: str
    kind: KindName
    at: str
    """When it happened; where the source does not say, when it was noticed."""
    machine: MachineName
    origin: MachineName | None = None
    """What it is a copy of."""
    before: str | None = None
    after: str | None = None


class InventoryEventsReply(Body, frozen=True):
    """Events, newest first; `before` leads to older ones and is absent at the end."""

    events: list[MachineEvent]
    before: int | None = None


class MachineAttester(Body, frozen=True):
    """An attester with one of a machine's keys."""

    id: str
    lifecycle: str
    hostname: str | None = None
    smbios_uuid: str | None = None
    """As the guest says."""


class MachineDetail(Body, frozen=True):
    """A machine and who speaks with its TPM."""

    machine: Machine
    attesters: list[MachineAttester]


class MachineReply(Body, frozen=True):
    """Every machine with the UUID: copies of a machine have the same."""

    machines: list[MachineDetail]


class InventoryGuestsQuery(Body, frozen=True):
    """Which attesters."""

    outcome: OutcomeName | None = None
    matched: Annotated[str, Meta(pattern="^(yes|no)$")] | None = None
    """`no`: only those that are not `match` or `ek-only`."""
    cursor: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    limit: Limit = 100


class InventoryGuest(Body, frozen=True):
    """An attester, and what the sources say of it now."""

    attester: MachineAttester
    inventory: InventoryOpinion


class InventoryGuestsReply(Body, frozen=True):
    """One page; with a `cursor` it is not the last, however few are on it."""

    guests: list[InventoryGuest]
    cursor: str | None = None


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
        kind="vsphere" if status.kind == "vsphere" else "file",
        place=status.place,
        with_vtpm=status.with_vtpm,
        failures=status.failures,
        read_at=None if status.read_at is None else rfc3339(status.read_at),
        progress=None
        if status.progress is None
        else SyncProgress(done=status.progress[0], total=status.progress[1]),
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
        ek_since=None if machine.ek_since is None else rfc3339(machine.ek_since),
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


def machine_detail(view: MachineView) -> MachineDetail:
    """A machine and its attesters."""
    return MachineDetail(
        machine=_machine(view.machine, stale=view.stale),
        attesters=[_attester(one) for one in view.attesters],
    )


def guest_message(view: GuestView) -> InventoryGuest:
    """An attester and its machine."""
    return InventoryGuest(attester=_attester(view.attester), inventory=opinion_message(view.found))


def _attester(record: AttesterRecord) -> MachineAttester:
    return MachineAttester(
        id=record.id,
        lifecycle=record.lifecycle.value,
        hostname=record.identity.hostname,
        smbios_uuid=record.identity.smbios_uuid,
    )


def event_message(kept: KeptEvent) -> MachineEvent:
    """One event."""
    event = kept.event
    return MachineEvent(
        sequence=kept.sequence,
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
