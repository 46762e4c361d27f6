"""Logs of confidential guests (CCEL): their indices are measurement registers, not PCRs. Display only.

UEFI 2.10, section 38.4.1 (EFI_CC_MEASUREMENT_PROTOCOL): register 0 is MRTD; PCRs 1 and 7 go to RTMR 0, PCRs 2 to 6 to
RTMR 1, PCRs 8 to 15 to RTMR 2. Which PCR an event would have been in follows from its type and label, which nobody
measured: good enough to read a log off for people, and for nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from verifier.tcg import uefi
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import NO_PCR, Event, ParsedEventLog

REGISTERS: Final = {0: "MRTD", 1: "RTMR0", 2: "RTMR1", 3: "RTMR2", 4: "RTMR3"}

TD_SHIM: Final = b"td_hob\0"
"""The first thing td-shim, a firmware for guests without UEFI, measures."""
_CONFIG: Final = int(EventType.EV_EFI_VARIABLE_DRIVER_CONFIG)
_SECURE_BOOT: Final = {
    _CONFIG: 7,
    int(EventType.EV_EFI_VARIABLE_AUTHORITY): 7,
    int(EventType.EV_SEPARATOR): 7,
    int(EventType.EV_S_CRTM_VERSION): 0,
    int(EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB): 0,
    int(EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB2): 0,
}
_BOOT_MANAGER: Final = {
    int(EventType.EV_EFI_BOOT_SERVICES_APPLICATION): 4,
    int(EventType.EV_SEPARATOR): 4,
    int(EventType.EV_EFI_BOOT_SERVICES_DRIVER): 2,
    int(EventType.EV_EFI_RUNTIME_SERVICES_DRIVER): 2,
    int(EventType.EV_EFI_VARIABLE_BOOT): 1,
    int(EventType.EV_EFI_VARIABLE_BOOT2): 1,
}
_IPL: Final = int(EventType.EV_IPL)
_ACTION: Final = int(EventType.EV_EFI_ACTION)
_NO_ACTION: Final = int(EventType.EV_NO_ACTION)
_GRUB: Final = (b"grub_cmd", b"kernel_cmdline", b"module_cmdline", b"grub_kernel_cmdline")


def is_cc_log(log: ParsedEventLog) -> bool:
    """Whether firmware put `SecureBoot` where RTMR 0 is, or td-shim its own, and nothing is where a PC has PCRs 5 to 23."""
    measured = [event for event in log.events if event.event_type != _NO_ACTION and event.pcr != NO_PCR]
    return all(event.pcr in REGISTERS for event in measured) and any(
        event.pcr == 1
        and ((event.event_type == _CONFIG and _name(event) == "SecureBoot") or event.data.startswith(TD_SHIM))
        for event in measured
    )


def as_pcrs(log: ParsedEventLog) -> ParsedEventLog:
    """The same events, each in the PCR that a PC would have measured it into."""
    events = tuple(event._replace(pcr=_pcr(event)) for event in log.events)
    return replace(log, events=events)


def _name(event: Event) -> str | None:
    variable = uefi.parse_variable(event.data)
    return None if variable is None else variable.name


def _pcr(event: Event) -> int:
    kind = event.event_type
    match event.pcr:
        case 1:
            return _SECURE_BOOT.get(kind, 1)
        case 2 if kind == _ACTION:
            return 4 if b"Boot Option" in event.data else 5
        case 2:
            return _BOOT_MANAGER.get(kind, 5)
        case 3:
            return _of_loader(event)
        case 4:
            return 23  # what applications of the guest measure
        case _:
            return event.pcr


def _of_loader(event: Event) -> int:
    if event.event_type != _IPL:
        return 9
    if event.data.startswith(_GRUB):
        return 8
    label = event.data.replace(b"\0", b"")
    if label.startswith(b"MokList"):
        return 14
    return 11 if label.startswith(b".") else 9
