"""What happened to a machine between two readings of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from verifier.appraisal.inventory import EventKind, InventoryEvent, InventoryMachine

READ_FROM_RECORDS = frozenset({EventKind.ADDED, EventKind.REMOVED, EventKind.VTPM_REPLACED})
"""What a vCenter has no event for that says enough; its own events tell the rest, with their true times."""


def events_between(
    before: InventoryMachine | None,
    after: InventoryMachine | None,
    *,
    at: datetime,
    token: str,
    kinds: Iterable[EventKind] = EventKind,
) -> Iterator[InventoryEvent]:
    """Events that lead from one reading to the next.

    Args:
        before: None when the machine is new.
        after: None when it is gone.
        at: when the later reading was made, which is no earlier than what it shows.
        token: names the later reading; two replicas that read the same make the same event ids of it.
        kinds: which events to tell of.
    """
    wanted = frozenset(kinds)
    for kind, old, new in _differences(before, after):
        machine = after if after is not None else before
        if machine is None or kind not in wanted:
            continue
        yield InventoryEvent(
            id=f"{machine.key}:{kind}:{token}", kind=kind, at=at, machine=machine.ref, before=old, after=new
        )


def _differences(
    before: InventoryMachine | None, after: InventoryMachine | None
) -> Iterator[tuple[EventKind, str | None, str | None]]:
    if before is None and after is None:
        return
    if before is None:
        yield EventKind.ADDED, None, None
        return
    if after is None:
        yield EventKind.REMOVED, None, None
        return
    if before.instance_uuid != after.instance_uuid:
        yield EventKind.INSTANCE_UUID_CHANGED, before.instance_uuid, after.instance_uuid
    if before.smbios_uuid != after.smbios_uuid:
        yield EventKind.UUID_CHANGED, before.smbios_uuid, after.smbios_uuid
    if before.ek_fingerprints != after.ek_fingerprints:
        yield EventKind.VTPM_REPLACED, _hex(before.ek_fingerprints), _hex(after.ek_fingerprints)


def _hex(fingerprints: frozenset[bytes]) -> str | None:
    return ",".join(sorted(one.hex() for one in fingerprints)) or None
