"""Claims of Windows: what its boot manager and OS loader measured into PCRs 12 and 13 (docs/binding.md)."""

from __future__ import annotations

from typing import Final

from verifier.claims import WindowsFacts
from verifier.policy import claim_readers as readers
from verifier.policy.claim_entry import ClaimEntry, Extract, Kind, claim, windows
from verifier.reasons import Claim

_EXECUTABLES: Final = (Claim.EXECUTABLES,)
_WHAT_MAY_RUN: Final = (Claim.EXECUTABLES, Claim.CONFIGURATION)
_RESUME: Final = 2
"""SIPAEVENT_TRANSFER_CONTROL: 1 is the OS loader, 2 the resume application, others are tools."""
_MAX_INT: Final = 2**63 - 1


def _windows(
    name: str, kind: Kind, about: str, extract: Extract, *, speaks_for: tuple[Claim, ...] = ()
) -> ClaimEntry:
    """Windows facts come from both of its PCRs, or are none."""
    return claim(f"boot.windows.{name}", kind, about, extract, 12, 13, every=True, speaks_for=speaks_for)


def _windows_flag(name: str, parameter: str, about: str, *, speaks_for: tuple[Claim, ...] = ()) -> ClaimEntry:
    extract = windows(lambda facts: facts.flag(parameter))
    return _windows(name, Kind.BOOL, about, extract, speaks_for=speaks_for)


def _isolated(facts: WindowsFacts, parameter: str) -> bool | None:
    """What runs in virtual secure mode does not run without it; where that is on, only Windows can say."""
    launched, asked = facts.flag("vsm_launch_type"), facts.flag(parameter)
    return asked if launched else launched


def _number(facts: WindowsFacts, parameter: str) -> int | None:
    value = facts.parameters.get(parameter)
    return value if value is not None and value <= _MAX_INT else None


WINDOWS: Final = (
    _windows_flag("boot_debugging", "bootdebugging", "A debugger could be attached to the boot manager."),
    _windows_flag("kernel_debugging", "oskerneldebug", "A debugger could be attached to the kernel."),
    _windows_flag(
        "hypervisor_debugging", "hypervisor_debug", "A debugger could be attached to the hypervisor."
    ),
    _windows_flag("code_integrity", "codeintegrity", "Drivers had to be signed.", speaks_for=_WHAT_MAY_RUN),
    _windows_flag("test_signing", "testsigning", "Test signatures were accepted.", speaks_for=_WHAT_MAY_RUN),
    _windows_flag("safe_mode", "safemode", "Safe mode."),
    _windows_flag("winpe", "winpe", "The preinstallation environment, not an installed Windows."),
    _windows_flag(
        "hypervisor", "hypervisor_launch_type", "The hypervisor was launched.", speaks_for=_WHAT_MAY_RUN
    ),
    _windows_flag(
        "vsm",
        "vsm_launch_type",
        "Virtual secure mode (virtualization-based security) was launched.",
        speaks_for=_WHAT_MAY_RUN,
    ),
    _windows(
        "hvci",
        Kind.BOOL,
        "Hypervisor-enforced code integrity was asked for and virtual secure mode launched; not proven where Windows says"
        " nothing of it.",
        windows(lambda facts: _isolated(facts, "vbs_hvci_policy")),
        speaks_for=_WHAT_MAY_RUN,
    ),
    _windows(
        "credential_guard",
        Kind.BOOL,
        "An isolated LSA (Credential Guard) was configured and virtual secure mode launched; not proven where Windows says"
        " nothing of it.",
        windows(lambda facts: _isolated(facts, "lsaiso_config")),
    ),
    _windows(
        "boot_counter",
        Kind.INT,
        "Windows' own count of boots (SIPAEVENT_BOOTCOUNTER).",
        windows(lambda facts: _number(facts, "bootcounter")),
    ),
    _windows(
        "event_counter",
        Kind.INT,
        "The monotonic counter Windows keeps in the TPM (SIPAEVENT_EVENTCOUNTER), where it has one.",
        windows(lambda facts: _number(facts, "eventcounter")),
    ),
    _windows(
        "resumed",
        Kind.BOOL,
        "The boot manager handed over to the resume application: Windows came back from hibernation and did not boot.",
        windows(lambda facts: _RESUME in facts.transfers),
    ),
    _windows_flag(
        "hibernation_disabled", "hibernation_disabled", "Hibernation was switched off for guarded hosts."
    ),
    _windows(
        "parameters",
        Kind.NUMBER_MAP,
        "Every number Windows measured before its kernel ran, by its name in wbcl.h, lower case (`vbs_hvci_policy`,"
        " `hypervisor_launch_type`, ...); without those measured with different values.",
        windows(readers.parameters),
        speaks_for=_WHAT_MAY_RUN,
    ),
    _windows(
        "transfers",
        Kind.INTS,
        "What the boot manager handed over to, as wbcl.h numbers it; 1 is the OS loader.",
        windows(lambda facts: sorted(facts.transfers)),
    ),
    _windows(
        "bitlocker_unlock",
        Kind.STRINGS,
        "By what the system volume was unlocked: `tpm`, `pin`, `recovery`, ...; empty where it was not locked.",
        windows(lambda facts: sorted(facts.bitlocker_unlock)),
        speaks_for=(Claim.STORAGE_OPAQUE, Claim.CONFIGURATION),
    ),
    _windows(
        "elam_drivers",
        Kind.STRINGS,
        "Early-launch antimalware drivers.",
        windows(lambda facts: list(facts.elam_drivers)),
        speaks_for=_EXECUTABLES,
    ),
    _windows(
        "code_integrity_policies",
        Kind.STRINGS,
        "Names of the active code-integrity policies.",
        windows(lambda facts: list(facts.policies)),
        speaks_for=_WHAT_MAY_RUN,
    ),
    _windows(
        "modules",
        Kind.STRINGS,
        "Authenticode digests of the images Windows loaded before its kernel ran, in order.",
        windows(lambda facts: readers.hexed(module.digest for module in facts.modules)),
        speaks_for=_EXECUTABLES,
    ),
)
