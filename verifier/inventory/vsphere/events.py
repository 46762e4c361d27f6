"""vCenter's events that matter to the identity of a machine."""

from __future__ import annotations

from typing import Any, Final

from pyVmomi import vim

from verifier.appraisal.inventory import EventKind, InventoryEvent, MachineKey, MachineRef
from verifier.appraisal.smbios import canonical_uuid
from verifier.inventory.vsphere.reading import moid_of, utc_of

REVERTED: Final = "com.vmware.vc.vm.VmStateRevertedToSnapshot"
"""A revert has no event class of its own: it is an EventEx of this type, posted when it has succeeded. (Its
TaskEvent, `vm.Snapshot.revert`, is posted when it is asked for, and would take all other tasks with it.)"""

EVENT_TYPES: Final = (
    "VmClonedEvent",
    "VmDeployedEvent",
    "VmInstanceUuidChangedEvent",
    "VmUuidChangedEvent",
    REVERTED,
)
"""For a filter's `eventTypeId`: class names, and the type of an EventEx. A deployment from a template is no
VmClonedEvent, though it copies a vTPM just so."""


def read_event(source: str, event: Any) -> InventoryEvent | None:  # noqa: ANN401 - vim.event.Event
    """An event of EVENT_TYPES in our terms; None for any other, and for one that names no machine."""
    if event.vm is None:
        return None
    told = _kind(event)
    if told is None:
        return None
    kind, origin, before, after = told
    at = utc_of(event.createdTime)
    return InventoryEvent(
        # Keys begin anew when a vCenter's database does; with the time they stay unique.
        id=f"{source}:event-{event.key}:{at.isoformat()}",
        kind=kind,
        at=at,
        machine=_ref(source, event.vm),
        origin=None if origin is None else _ref(source, origin),
        before=before,
        after=after,
    )


def _kind(event: Any) -> tuple[EventKind, Any, str | None, str | None] | None:  # noqa: ANN401
    if isinstance(event, vim.event.VmClonedEvent):
        return EventKind.CLONED, event.sourceVm, None, None
    if isinstance(event, vim.event.VmDeployedEvent):
        return EventKind.CLONED, event.srcTemplate, None, None
    if isinstance(event, vim.event.VmInstanceUuidChangedEvent):
        old, new = event.oldInstanceUuid, event.newInstanceUuid
        return EventKind.INSTANCE_UUID_CHANGED, None, canonical_uuid(old), canonical_uuid(new)
    if isinstance(event, vim.event.VmUuidChangedEvent):
        return EventKind.UUID_CHANGED, None, canonical_uuid(event.oldUuid), canonical_uuid(event.newUuid)
    if isinstance(event, vim.event.EventEx) and event.eventTypeId == REVERTED:
        arguments = {argument.key: argument.value for argument in event.arguments or ()}
        name = arguments.get("snapshotName")
        return EventKind.SNAPSHOT_REVERTED, None, None, name if isinstance(name, str) else None
    return None


def _ref(source: str, argument: Any) -> MachineRef:  # noqa: ANN401 - vim.event.VmEventArgument
    return MachineRef(MachineKey(source, moid_of(argument.vm)), str(argument.name))
