"""Which certificate may have let which image run, by the order of the log. Display only.

Firmware measures an authority into PCR 7 when it is first used and then the image into PCR 2 or 4. The order of events
of different PCRs is not measured: whoever edits the log can move them. So this pairing is a label; what a policy can
judge is the proven set of authorities and, apart from it, the proven set of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from verifier.appraisal.boot.binding import IMAGE_PCRS, BoundLog
from verifier.appraisal.event_data import Described, describe
from verifier.claims import Binding
from verifier.tcg.event_types import EventType

_AUTHORITY: Final = int(EventType.EV_EFI_VARIABLE_AUTHORITY)
_SECURE_BOOT_PCR: Final = 7
_NO_AUTHORITIES: Final = frozenset({"SbatLevel", "MokListTrusted", "MokSBState", "MokDBState", "MokPolicy"})
"""Switches and levels of shim, measured under the same type."""


def let_run(bound: BoundLog) -> list[Described]:
    """Every image with the authorities that were measured for the first time since the image before it.

    With none, one that had been measured earlier let it run, or none did (Secure Boot off, or an image that was not
    checked): a log cannot tell which.
    """
    return list(_pairs(bound))


def _pairs(bound: BoundLog) -> Iterator[Described]:
    fresh: list[Described] = []
    for fact in bound.facts:
        event = bound.log.events[fact.index]
        if event.event_type == _AUTHORITY and fact.pcr == _SECURE_BOOT_PCR:
            data = describe(event.event_type, event.data)
            if data.get("variable") not in _NO_AUTHORITIES:
                fresh.append({"event": fact.index, **_shown(data)})
        elif fact.pcr in IMAGE_PCRS and fact.digests and fact.binding is Binding.UNBOUND:
            path = describe(event.event_type, event.data).get("device_path")
            yield {"image_event": fact.index, "device_path": path, "authorities": fresh, "proven": False}
            fresh = []


def _shown(data: Described) -> Described:
    authority = data.get("authority")
    subject = authority.get("subject") if isinstance(authority, dict) else None
    return {"variable": data.get("variable"), "subject": subject}
