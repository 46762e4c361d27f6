"""THE list of claims a policy may read, with what each one is and how it is read off proven facts.

Only `ProvenClaims` is reachable from here, so nothing unbound is. Adding a claim is one entry; `docs/claims.md`, the
type checker of CEL rules and the linter follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.claims import BootDetails, BootFacts
from verifier.policy import claim_readers as readers
from verifier.policy.claim_entry import (
    ClaimEntry,
    Kind,
    Value,
    View,
    boot,
    claim,
    details,
)
from verifier.policy.identity_claims import IDENTITY
from verifier.policy.runtime_claims import RUNTIME
from verifier.policy.userspace_claims import USERSPACE
from verifier.policy.windows_claims import WINDOWS
from verifier.reasons import Claim

__all__ = ["CATALOGUE", "ClaimEntry", "Kind", "Value", "View"]

_LINE_PCRS: Final = (8, 9, 11, 12)
_EXECUTABLES: Final = (Claim.EXECUTABLES,)
_WHAT_MAY_RUN: Final = (Claim.EXECUTABLES, Claim.CONFIGURATION)
_ANYTHING: Final = (Claim.CONFIGURATION, Claim.EXECUTABLES, Claim.HARDWARE)
_OBFUSCATED: Final = (
    "For an AK outside the endorsement hierarchy the TPM adds a number of that key's own"
    " (TPM 2.0 Library, Part 2, TPMS_ATTEST)."
)


def _certificates(name: str) -> ClaimEntry:
    def read(found: BootDetails) -> Value | None:
        database = found.databases.get(name)
        return None if database is None else readers.hexed(database.certificates)

    about = f"SHA-256 of each certificate in {name}, as firmware measured it."
    return claim(f"boot.secure_boot.{name.lower()}.certificates", Kind.STRINGS, about, details(read), 7)


def _database_digests(name: str) -> ClaimEntry:
    def read(found: BootDetails) -> Value | None:
        database = found.databases.get(name)
        return None if database is None else readers.hexed(sorted(database.digests.get("sha256", ())))

    about = f"SHA-256 image digests in {name}."
    return claim(f"boot.secure_boot.{name}.digests", Kind.STRINGS, about, details(read), 7)


def _mode(name: str, about: str) -> ClaimEntry:
    def read(facts: BootFacts) -> Value | None:
        value: bool | None = getattr(facts.secure_boot, name)
        return value

    return claim(f"boot.secure_boot.{name}", Kind.BOOL, about, boot(read), 7, 1)


_QUOTE: Final = (
    claim(
        "quote.pcrs",
        Kind.BY_PCR,
        "Quoted PCR values in the policy's bank, by index.",
        lambda view: {pcr: value.hex() for pcr, value in view.pcrs.items()},
        speaks_for=_ANYTHING,
    ),
    claim(
        "quote.firmware_version",
        Kind.UINT,
        "The TPM's firmware version as it signed it. " + _OBFUSCATED,
        lambda view: view.claims.quote.firmware_version,
    ),
    claim(
        "quote.signature_hash",
        Kind.STRING,
        "Hash of the quote's signature: `sha256`, `sha384`, `sha512` or `sha1`.",
        lambda view: view.claims.quote.signature_hash.label,
    ),
    claim(
        "quote.clock.milliseconds",
        Kind.UINT,
        "Time the TPM was powered since it was last cleared.",
        lambda view: view.claims.quote.clock.clock,
    ),
    claim(
        "quote.clock.reset_count",
        Kind.UINT,
        "How often the TPM was reset (booted) since it was last cleared. " + _OBFUSCATED,
        lambda view: view.claims.quote.clock.reset_count,
    ),
    claim(
        "quote.clock.restart_count",
        Kind.UINT,
        "How often the TPM was suspended or restarted since its last reset. " + _OBFUSCATED,
        lambda view: view.claims.quote.clock.restart_count,
    ),
    claim(
        "quote.clock.safe",
        Kind.BOOL,
        "No later time was ever reported; false where a power loss may have set the clock back.",
        lambda view: view.claims.quote.clock.safe,
    ),
)

_FIRMWARE: Final = (
    claim(
        "boot.firmware.version",
        Kind.STRING,
        "Version that firmware measured of itself (EV_S_CRTM_VERSION).",
        details(lambda found: found.firmware_version),
        0,
        speaks_for=(Claim.HARDWARE,),
    ),
    claim(
        "boot.firmware.actions",
        Kind.STRINGS,
        "Texts firmware measured into PCR 7, such as a switched-off DMA protection.",
        details(lambda found: readers.listed(found.firmware_actions)),
        7,
        speaks_for=(Claim.HARDWARE,),
    ),
    claim(
        "boot.startup_locality",
        Kind.INT,
        "Locality the TPM was started from; 3 or 4 where a hardware root of trust did it.",
        boot(lambda facts: facts.startup_locality),
        0,
        speaks_for=(Claim.HARDWARE,),
    ),
    claim(
        "boot.error_separators",
        Kind.INTS,
        "PCRs that firmware closed with the separator of an error.",
        boot(lambda facts: list(facts.error_separators)),
        speaks_for=(Claim.HARDWARE,),
    ),
    claim(
        "boot.unexplained_pcrs",
        Kind.INTS,
        "Quoted PCRs that the log does not lead to.",
        boot(lambda facts: list(facts.unlogged_pcrs)),
    ),
    claim(
        "boot.digests",
        Kind.LISTS_BY_PCR,
        "Digests measured into each quoted PCR that the log explains, in order.",
        readers.digests_by_pcr,
        speaks_for=_ANYTHING,
    ),
    claim(
        "boot.order",
        Kind.STRINGS,
        "BootOrder, where firmware measures the variable's name.",
        details(lambda found: readers.listed(found.boot_order)),
        1,
    ),
    claim(
        "boot.disk.guid",
        Kind.STRING,
        "GUID of the disk that was booted from, from its measured partition table.",
        details(lambda found: found.disk_guid),
        5,
    ),
    claim(
        "boot.disk.partitions", Kind.TEXT_MAP, "Its partitions: GUID to name.", details(readers.partitions), 5
    ),
)

_SECURE_BOOT: Final = (
    claim(
        "boot.secure_boot.enabled",
        Kind.BOOL,
        "Secure Boot was on before the OS loader ran.",
        boot(lambda facts: facts.secure_boot.enabled),
        7,
    ),
    _mode("setup_mode", "Keys could be replaced without a signature."),
    _mode("audit_mode", "Images ran whatever their signature."),
    _mode("deployed_mode", "The mode that only a signed change leaves."),
    *(_certificates(name) for name in ("PK", "KEK", "db", "dbx")),
    *(_database_digests(name) for name in ("db", "dbx")),
    claim(
        "boot.secure_boot.dbx.entries", Kind.INT, "Number of entries in dbx.", details(readers.entry_count), 7
    ),
    claim(
        "boot.secure_boot.authorities",
        Kind.STRINGS,
        "SHA-256 of every certificate (or entry) that let an image run; complete, or not proven.",
        details(readers.authorities),
        7,
        speaks_for=_WHAT_MAY_RUN,
    ),
)

_LOADERS: Final = (
    claim(
        "boot.images",
        Kind.STRINGS,
        "Loaders and kernels: every digest of PCR 4 that no readable text explains (of a PE image, its"
        " Authenticode digest).",
        lambda view: readers.images(view, 4),
        4,
        speaks_for=_EXECUTABLES,
    ),
    claim(
        "boot.drivers",
        Kind.STRINGS,
        "Option ROMs and drivers: the same of PCR 2.",
        lambda view: readers.images(view, 2),
        2,
        speaks_for=_EXECUTABLES,
    ),
    claim(
        "boot.shim.states",
        Kind.NUMBER_MAP,
        "shim's switches by name: `MokSBState` 1 is validation switched off; one that is missing was not measured.",
        details(lambda found: readers.mapped(found.shim_states)),
        7,
        speaks_for=_WHAT_MAY_RUN,
    ),
    claim(
        "boot.shim.sbat_level",
        Kind.TEXT_MAP,
        "shim's revocation level: component to generation.",
        details(lambda found: readers.mapped(found.sbat_level)),
        7,
        speaks_for=_WHAT_MAY_RUN,
    ),
    claim(
        "boot.shim.mok_list_trusted",
        Kind.BOOL,
        "shim was told to trust the machine owner's keys for more than itself.",
        details(lambda found: found.mok_list_trusted),
        14,
        speaks_for=_WHAT_MAY_RUN,
    ),
    claim(
        "boot.grub.commands",
        Kind.STRINGS,
        "All texts of PCR 8, in order.",
        details(lambda found: readers.listed(found.grub_commands)),
        8,
    ),
    claim(
        "boot.loader.lines",
        Kind.STRINGS,
        "All texts of PCR 12, in order: command lines that systemd-boot or systemd-stub passed on.",
        details(lambda found: readers.listed(found.loader_lines)),
        12,
    ),
    claim(
        "boot.files",
        Kind.STRINGS,
        "Files that GRUB or the kernel's EFI stub read (configuration, modules, kernel, initrd): every digest of PCR 9"
        " but that of the command line.",
        lambda view: readers.files(view, 9),
        9,
        speaks_for=_EXECUTABLES,
    ),
    claim(
        "boot.credentials",
        Kind.STRINGS,
        "What a loader or systemd-stub passed on beside command lines (credentials, configuration extensions, addons):"
        " every digest of PCR 12 that no readable text explains; not proven of Windows.",
        lambda view: readers.passed_on(view, 12),
        12,
        speaks_for=_WHAT_MAY_RUN,
    ),
    claim(
        "boot.extensions",
        Kind.STRINGS,
        "System extensions that systemd-stub passed on: every digest of PCR 13; not proven of Windows.",
        lambda view: readers.passed_on(view, 13),
        13,
        speaks_for=_EXECUTABLES,
    ),
    claim(
        "boot.uki.sections",
        Kind.TEXT_MAP,
        "Section name to content digest of the unified kernel image; empty where none booted.",
        readers.sections,
        readers.UKI_PCR,
        speaks_for=_EXECUTABLES,
    ),
    claim(
        "boot.phases",
        Kind.STRINGS,
        "Boot phases systemd-pcrphase extended after the log ended, in order.",
        boot(lambda facts: readers.listed(facts.boot_phases)),
        readers.UKI_PCR,
        speaks_for=_EXECUTABLES,
    ),
    claim(
        "boot.kernel_command_line",
        Kind.STRING,
        "The kernel's command line, from whoever measured it.",
        boot(lambda facts: facts.kernel_command_line),
        *_LINE_PCRS,
    ),
    claim(
        "boot.kernel_arguments",
        Kind.STRINGS,
        "The same, split at white space.",
        boot(readers.arguments),
        *_LINE_PCRS,
    ),
)

CATALOGUE: Final[Mapping[str, ClaimEntry]] = {
    entry.name: entry
    for entry in (*_QUOTE, *_FIRMWARE, *_SECURE_BOOT, *_LOADERS, *USERSPACE, *WINDOWS, *RUNTIME, *IDENTITY)
}
