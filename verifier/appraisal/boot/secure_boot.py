"""Secure Boot as firmware measured it (TCG PFP, section 3.3.4.8; UEFI 2.10, section 3.3)."""

from __future__ import annotations

from typing import Final

from verifier.appraisal.boot.binding import BoundLog
from verifier.claims import Binding, EventFact, SecureBootFacts
from verifier.tcg.event_types import EventType
from verifier.tcg.uefi import GLOBAL_VARIABLE, parse_variable

_CONFIG: Final = int(EventType.EV_EFI_VARIABLE_DRIVER_CONFIG)
_SECURE_BOOT_PCR: Final = 7
_MODE_PCRS: Final = (7, 1)
"""Some firmware measures the mode variables into PCR 1."""
_FLAGS: Final = {b"": False, b"\0": False, b"\x01": True}
"""A variable that does not exist is measured with no value."""
_SECURE_BOOT: Final = "SecureBoot"
_SPELLED: Final = _SECURE_BOOT.encode("utf-16-le")


def read_secure_boot(bound: BoundLog) -> SecureBootFacts:
    """What bound variables before the separator say; None where none does, or where two contradict."""
    return SecureBootFacts(
        enabled=_enabled(bound),
        setup_mode=_mode(bound, "SetupMode"),
        audit_mode=_mode(bound, "AuditMode"),
        deployed_mode=_mode(bound, "DeployedMode"),
    )


def _enabled(bound: BoundLog) -> bool | None:
    """SecureBoot, as the first thing in PCR 7 that can be about it.

    Whatever runs later can extend PCR 7 again, but cannot take back what firmware measured first. So every
    event up to the variable must be bound, and none but a plain variable event may even contain its name:
    then the true measurement cannot hide under another label. Without a proven separator nothing says where
    firmware ended.
    """
    if _SECURE_BOOT_PCR not in bound.separated or _SECURE_BOOT_PCR in bound.failed:
        return None
    value: bool | None = None
    for fact in bound.of(_SECURE_BOOT_PCR):
        if fact.after_separator:
            break
        if fact.binding is not Binding.BOUND:
            if value is None:
                return None
        elif _SPELLED in bound.log.events[fact.index].data:
            said = _flag(bound, fact, _SECURE_BOOT)
            if said is None or value not in (None, said):
                return None
            value = said
    return value


def _mode(bound: BoundLog, name: str) -> bool | None:
    said = {
        _flag(bound, fact, name)
        for pcr in _MODE_PCRS
        if pcr in bound.separated
        for fact in bound.of(pcr)
        if fact.name == name and not fact.after_separator
    }
    return said.pop() if len(said) == 1 else None


def _flag(bound: BoundLog, fact: EventFact, name: str) -> bool | None:
    if fact.binding is not Binding.BOUND or fact.name != name or fact.event_type != _CONFIG:
        return None
    variable = parse_variable(bound.log.events[fact.index].data)
    if variable is None or variable.vendor != GLOBAL_VARIABLE:
        return None
    return _FLAGS.get(variable.value)
