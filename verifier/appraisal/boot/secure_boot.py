"""Secure Boot as firmware measured it (TCG PFP, section 3.3.4.8; UEFI 2.10, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from verifier.appraisal.boot.binding import BoundEvent
from verifier.claims import Binding, SecureBootFacts
from verifier.tcg.event_types import EventType
from verifier.tcg.uefi import GLOBAL_VARIABLE, parse_variable

_CONFIG: Final = int(EventType.EV_EFI_VARIABLE_DRIVER_CONFIG)
_SECURE_BOOT_PCR: Final = 7
_MODE_PCRS: Final = (1, 7)
"""Some firmware measures the mode variables into PCR 1."""
_FLAGS: Final = {b"\0": False, b"\x01": True}


def read_secure_boot(events: Iterable[BoundEvent]) -> SecureBootFacts:
    """What bound variables before the separator say; None where none does, or where two contradict."""
    said: dict[str, set[bool | None]] = {}
    for bound in events:
        event = bound.event
        if bound.binding is not Binding.BOUND or event.event_type != _CONFIG or bound.after_separator:
            continue
        if bound.name not in ("SecureBoot", "SetupMode", "AuditMode", "DeployedMode"):
            continue
        if event.pcr != _SECURE_BOOT_PCR and (bound.name == "SecureBoot" or event.pcr not in _MODE_PCRS):
            continue
        variable = parse_variable(event.data)
        if variable is not None and variable.vendor == GLOBAL_VARIABLE:
            said.setdefault(variable.name, set()).add(_FLAGS.get(variable.value))

    def flag(name: str) -> bool | None:
        values = said.get(name, set())
        return next(iter(values)) if len(values) == 1 else None

    return SecureBootFacts(
        enabled=flag("SecureBoot"),
        setup_mode=flag("SetupMode"),
        audit_mode=flag("AuditMode"),
        deployed_mode=flag("DeployedMode"),
    )
