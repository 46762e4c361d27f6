"""What an inventory says of machines: frozen records, as unproven as the source they come from.

An inventory is an operator's word (a file) or a hypervisor manager's (vCenter) on which endorsement key belongs
to which machine. It is a reference, not evidence: nothing here was signed by a TPM.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, order=True)
class MachineKey:
    """Names a machine within an estate: the source's configured name, and the id the source gives it.

    For vSphere the id is the managed object's (`vm-42`), unique within a vCenter and stable as long as the
    machine is registered; for a file it is the machine's name.
    """

    source: str
    id: str

    def __str__(self) -> str:
        return f"{self.source}/{self.id}"


@dataclass(frozen=True, slots=True)
class MachineRef:
    """A machine as an event names it; it may no longer exist."""

    key: MachineKey
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.key})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot of a machine. `current`: the machine's present state descends from it directly."""

    id: str
    name: str
    created: datetime
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryMachine:
    """A machine as its source describes it.

    Attributes:
        key: source and id.
        name: for people; not unique.
        instance_uuid: vCenter's identifier of the machine, canonical text, never seen by the guest.
        smbios_uuid: canonical text in the source's spelling; see `verifier.appraisal.smbios`.
        ek_fingerprints: SHA-256 of the canonical SubjectPublicKeyInfo of each endorsement key, as
            `verifier.crypto.keys.fingerprint` makes it. Empty: the source lists none.
        ek_certificates: DER, in no particular order; not validated.
        ek_since: since when exactly these keys have been listed, as far as is known: when they were first read.
        has_vtpm: a vTPM is configured. None: the source does not say.
        secure_boot: as configured, which is not what booted; None: the source does not say.
        encrypted_key_id: the key that encrypts the machine's files (`provider/key`), or None.
        snapshots: oldest first.
        vcenter: host name of the vCenter, or None when the source is not one.
        template: it cannot run, but is there to be copied.
        labels: the operator's.
        problems: what could not be read, for people.
    """

    key: MachineKey
    name: str
    instance_uuid: str | None = None
    smbios_uuid: str | None = None
    ek_fingerprints: frozenset[bytes] = frozenset()
    ek_certificates: tuple[bytes, ...] = ()
    ek_since: datetime | None = None
    has_vtpm: bool | None = None
    secure_boot: bool | None = None
    encrypted_key_id: str | None = None
    snapshots: tuple[Snapshot, ...] = ()
    vcenter: str | None = None
    template: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def ref(self) -> MachineRef:
        """How an event would name it."""
        return MachineRef(self.key, self.name)


class EventKind(enum.StrEnum):
    """What happened to a machine that matters to its identity."""

    ADDED = "added"
    REMOVED = "removed"
    CLONED = "cloned"
    """`machine` was made as a copy of `origin` (a clone, or deployed from a template). Whether the vTPM was
    copied or replaced, the event does not say: the endorsement keys of both do."""
    INSTANCE_UUID_CHANGED = "instance-uuid-changed"
    UUID_CHANGED = "uuid-changed"
    SNAPSHOT_REVERTED = "snapshot-reverted"
    VTPM_REPLACED = "vtpm-replaced"
    """The endorsement keys changed from one set to another, or came, or went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryEvent:
    """Something that happened to a machine. `id` is unique and the same whenever the event is read again.

    `before` and `after` are text for people and rules: UUIDs, or hex fingerprints joined by commas.
    """

    id: str
    kind: EventKind
    at: datetime
    machine: MachineRef
    origin: MachineRef | None = None
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryChanges:
    """What changed since a cursor, and the cursor to ask with next time.

    `complete`: `machines` is all there is, because the cursor was None, of another process, or too old; what
    the asker holds beyond it is gone. Otherwise `machines` are those that are new or differ.
    """

    machines: tuple[InventoryMachine, ...]
    removed: tuple[MachineKey, ...]
    events: tuple[InventoryEvent, ...]
    cursor: str
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """How a source stands.

    Attributes:
        synced_at: when its content was last known to be whole and current, None before the first time.
        machines: how many it lists.
        problem: why it is not current now, or None.
        warnings: what is missing while the rest works: events that may not be read, machines that show no
            configuration.
        kind: `vsphere` or `file`.
        place: host, or path.
        read_at: when every machine was last read, changed or not; by this process.
        with_vtpm: how many machines have a vTPM, or list an endorsement key.
        failures: how often it failed in this process.
        progress: how many machines of how many that have to be read were, while a reading is under way.
    """

    name: str
    synced_at: datetime | None
    machines: int
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    kind: str = ""
    place: str = ""
    read_at: datetime | None = None
    with_vtpm: int = 0
    failures: int = 0
    progress: tuple[int, int] | None = None
