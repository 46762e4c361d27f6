"""Properties of a VirtualMachine object, as vCenter gives them, to an `InventoryMachine`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from pyVmomi import vim

from verifier.appraisal.inventory import InventoryMachine, MachineKey, Snapshot
from verifier.appraisal.smbios import canonical_uuid
from verifier.errors import EvidenceError
from verifier.inventory.eks import certificate_fingerprint, request_fingerprint

NAME: Final = "name"
INSTANCE_UUID: Final = "config.instanceUuid"
SMBIOS_UUID: Final = "config.uuid"
CHANGE_VERSION: Final = "config.changeVersion"
MODIFIED: Final = "config.modified"
TEMPLATE: Final = "config.template"
KEY_ID: Final = "config.keyId"
BOOT_OPTIONS: Final = "config.bootOptions"
DEVICES: Final = "config.hardware.device"
SNAPSHOT: Final = "snapshot"

SIGNALS: Final = (NAME, INSTANCE_UUID, SMBIOS_UUID, CHANGE_VERSION, MODIFIED, SNAPSHOT)
"""A few bytes of each machine, one of which changes with everything that is read of it."""
DETAILS: Final = (
    NAME,
    INSTANCE_UUID,
    SMBIOS_UUID,
    CHANGE_VERSION,
    TEMPLATE,
    KEY_ID,
    BOOT_OPTIONS,
    DEVICES,
    SNAPSHOT,
)
"""All that is read; the devices are some 20 KB of XML, which is why they are read only on a signal."""
_MAX_SNAPSHOTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose machines these are: the source's name, the vCenter's host name, the operator's labels."""

    source: str
    host: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A machine, and the version of its configuration that it was read at."""

    machine: InventoryMachine
    version: str


def read_machine(
    origin: Origin, moid: str, properties: Mapping[str, Any], missing: Mapping[str, str]
) -> Reading:
    """Make a machine of the properties of DETAILS that vCenter gave; `missing` says why others are not there.

    A machine whose host is disconnected has no configuration at all, and one on which the user lacks a privilege
    lacks some: what is not there becomes unknown (`has_vtpm` None) with a problem, never "no".
    """
    problems = [f"{path}: {why}" for path, why in missing.items()]
    if SMBIOS_UUID not in properties and SMBIOS_UUID not in missing:
        problems.append("its configuration is not available")
    devices = properties.get(DEVICES)
    vtpms = [one for one in _items(devices) if isinstance(one, vim.vm.device.VirtualTPM)]
    certificates = tuple(bytes(der) for vtpm in vtpms for der in _items(vtpm.endorsementKeyCertificate))
    fingerprints = frozenset(_fingerprints(vtpms, certificates, problems))
    boot = properties.get(BOOT_OPTIONS)
    machine = InventoryMachine(
        key=MachineKey(origin.source, moid),
        name=_text(properties.get(NAME)) or moid,
        instance_uuid=canonical_uuid(_text(properties.get(INSTANCE_UUID))),
        smbios_uuid=canonical_uuid(_text(properties.get(SMBIOS_UUID))),
        ek_fingerprints=fingerprints,
        ek_certificates=certificates,
        has_vtpm=None if devices is None else bool(vtpms),
        secure_boot=None if boot is None else bool(boot.efiSecureBootEnabled),
        encrypted_key_id=_key_id(properties.get(KEY_ID)),
        snapshots=read_snapshots(properties.get(SNAPSHOT)),
        vcenter=origin.host,
        template=properties.get(TEMPLATE) is True,
        labels=origin.labels,
        problems=tuple(problems),
    )
    return Reading(machine=machine, version=_text(properties.get(CHANGE_VERSION)))


def carry_over(before: InventoryMachine | None, now: InventoryMachine) -> InventoryMachine:
    """Keep what was known of a machine where this reading could not tell.

    A host that loses its connection must not make its machines unknown, nor their vTPMs look removed.
    """
    if before is None:
        return now
    if now.has_vtpm is None:
        now = replace(
            now,
            has_vtpm=before.has_vtpm,
            ek_fingerprints=before.ek_fingerprints,
            ek_certificates=before.ek_certificates,
        )
    if now.smbios_uuid is None and now.problems:
        now = replace(
            now,
            smbios_uuid=before.smbios_uuid,
            instance_uuid=before.instance_uuid,
            secure_boot=before.secure_boot,
            encrypted_key_id=before.encrypted_key_id,
            template=before.template,
        )
    return now


def read_snapshots(info: Any) -> tuple[Snapshot, ...]:  # noqa: ANN401 - vim.vm.SnapshotInfo or None
    """A machine's snapshot tree as a list, oldest first."""
    if info is None:
        return ()
    current = None if info.currentSnapshot is None else moid_of(info.currentSnapshot)
    found: list[Snapshot] = []
    waiting = list(_items(info.rootSnapshotList))
    while waiting and len(found) < _MAX_SNAPSHOTS:
        tree = waiting.pop()
        waiting += _items(tree.childSnapshotList)
        moid = moid_of(tree.snapshot)
        found.append(
            Snapshot(id=moid, name=_text(tree.name), created=utc_of(tree.createTime), current=moid == current)
        )
    return tuple(sorted(found, key=lambda one: (one.created, one.id)))


def moid_of(reference: Any) -> str:  # noqa: ANN401 - any managed object
    """The id of a managed object reference, such as `vm-42`."""
    return str(reference._GetMoId())  # noqa: SLF001 - pyVmomi has no other way


def utc_of(moment: datetime) -> datetime:
    """A time of vCenter in UTC; without a zone it is UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _fingerprints(
    vtpms: Iterable[Any], certificates: Iterable[bytes], problems: list[str]
) -> Iterator[bytes]:
    """Keys of the certificates and of the signing requests, which a vTPM without certificates has too."""
    requests = [bytes(der) for vtpm in vtpms for der in _items(vtpm.endorsementKeyCertificateSigningRequest)]
    for what, listed, read in (
        ("EK certificate", certificates, certificate_fingerprint),
        ("EK signing request", requests, request_fingerprint),
    ):
        for number, der in enumerate(listed, 1):
            try:
                yield read(der)
            except EvidenceError as error:
                problems.append(f"{what} {number}: {error}")


def _key_id(key: Any) -> str | None:  # noqa: ANN401 - vim.encryption.CryptoKeyId or None
    if key is None:
        return None
    provider = "" if key.providerId is None else _text(key.providerId.id)
    return f"{provider}/{_text(key.keyId)}" if provider else _text(key.keyId)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _items(value: Any) -> list[Any]:  # noqa: ANN401 - an array of vSphere's, or None
    return [] if value is None else list(value)
