"""THE list of claims a policy may read, with what each one is and how it is read off proven facts.

Only `ProvenClaims` is reachable from here, so nothing unbound is. Adding a claim is one entry of `CATALOGUE`;
`docs/claims.md`, the type checker of CEL rules and the linter follow from it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from verifier.claims import Binding, BootFacts, EndorsementFacts, EventFact, ProvenClaims, SecureBootFacts
from verifier.reasons import Claim
from verifier.tcg.algorithms import HashAlg

Scalar = bool | int | str
Value = Scalar | list[Scalar] | Mapping[Scalar, "Value"]
"""What CEL computes with; digests are lower-case hex."""

UKI_PCR: Final = 11


class Kind(enum.Enum):
    """CEL types of claims; the value is how CEL writes the type."""

    BOOL = "bool"
    INT = "int"
    UINT = "uint"
    STRING = "string"
    STRINGS = "list(string)"
    INTS = "list(int)"
    TEXT_MAP = "map(string, string)"
    BY_PCR = "map(int, string)"
    LISTS_BY_PCR = "map(int, list(string))"


@dataclass(frozen=True)
class View:
    """Proven claims as one policy sees them: in its own bank.

    A boot log that was not replayed in that bank is not there.
    """

    claims: ProvenClaims
    bank: HashAlg

    @cached_property
    def boot(self) -> BootFacts | None:
        """The boot facts, if they hold in this bank."""
        boot = self.claims.boot
        return boot if boot is not None and self.bank in boot.banks else None

    @cached_property
    def pcrs(self) -> Mapping[int, bytes]:
        """Quoted values in this bank."""
        return self.claims.quote.pcrs.get(self.bank, {})

    def explained(self, pcr: int) -> bool:
        """Whether the log leads to the quoted value of `pcr`."""
        return self.boot is not None and pcr in self.pcrs and pcr not in self.boot.unlogged_pcrs

    def events(self, pcr: int) -> list[EventFact]:
        """Measured events of `pcr`, in order; empty where nothing is proven."""
        if self.boot is None or not self.explained(pcr):
            return []
        return [event for event in self.boot.events if event.pcr == pcr and self.bank in event.digests]


Extract = Callable[[View], Value | None]


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """One claim.

    Attributes:
        name: as policies write it; at least one dot, so that no variable of a CEL macro can hide it.
        about: one sentence for people.
        speaks_for: the AR4SI claim a rule over it usually speaks for.
        extract: reads the value; None where it is not proven.
        pcrs: the claim is proven by events of at least one of these; empty: by the quote or by enrolment.
        reads_log: it comes from the boot log.
    """

    name: str
    kind: Kind
    about: str
    speaks_for: Claim
    extract: Extract
    pcrs: frozenset[int] = frozenset()
    reads_log: bool = False

    def read(self, view: View) -> Value | None:
        """The value, or None where it is not proven in this view."""
        if self.reads_log and view.boot is None:
            return None
        if self.pcrs and not any(view.explained(pcr) for pcr in self.pcrs):
            return None
        return self.extract(view)


def _quote(name: str, kind: Kind, about: str, extract: Extract) -> ClaimEntry:
    return ClaimEntry(f"quote.{name}", kind, about, Claim.HARDWARE, extract)


def _boot(
    name: str,
    kind: Kind,
    about: str,
    read: Callable[[BootFacts], Value | None],
    *pcrs: int,
    speaks_for: Claim = Claim.CONFIGURATION,
) -> ClaimEntry:
    """A claim that `BootFacts` carries as it is."""

    def extract(view: View) -> Value | None:
        return None if view.boot is None else read(view.boot)

    return ClaimEntry(f"boot.{name}", kind, about, speaks_for, extract, frozenset(pcrs), reads_log=True)


def _events(
    name: str, kind: Kind, about: str, extract: Extract, *pcrs: int, speaks_for: Claim = Claim.EXECUTABLES
) -> ClaimEntry:
    """A claim computed from the events of the log."""
    return ClaimEntry(f"boot.{name}", kind, about, speaks_for, extract, frozenset(pcrs), reads_log=True)


def _secure_boot(
    name: str, about: str, read: Callable[[SecureBootFacts], bool | None], *pcrs: int
) -> ClaimEntry:
    return _boot(f"secure_boot.{name}", Kind.BOOL, about, lambda boot: read(boot.secure_boot), *pcrs)


def _identity(
    name: str, kind: Kind, about: str, read: Callable[[EndorsementFacts], Value | None]
) -> ClaimEntry:
    def extract(view: View) -> Value | None:
        facts = view.claims.endorsement
        return None if facts is None else read(facts)

    return ClaimEntry(f"identity.{name}", kind, about, Claim.INSTANCE_IDENTITY, extract)


def _sections(view: View) -> Value:
    """Content digests of the UKI's sections.

    Only events that the stub's own order named count; a bound event is never one of them, whatever its name is.
    """
    sections: dict[Scalar, Value] = {}
    for event in view.events(UKI_PCR):
        if event.name is not None and event.binding is not Binding.BOUND:
            sections.setdefault(event.name, event.digests[view.bank].hex())
    return sections


def _digests(view: View) -> Value:
    return {
        pcr: [event.digests[view.bank].hex() for event in view.events(pcr)]
        for pcr in view.pcrs
        if view.explained(pcr)
    }


def _images(view: View) -> Value | None:
    """Every digest of PCR 4 that is not proven to be something else.

    Event types are not measured: whoever edits the log can hide an image from a selection by type, and here can
    only add to the list.
    """
    return [event.digests[view.bank].hex() for event in view.events(4) if event.binding is Binding.UNBOUND]


def _arguments(boot: BootFacts) -> Value | None:
    line = boot.kernel_command_line
    return None if line is None else list(line.split())


_LINE_PCRS: Final = (8, 9, 11, 12)

_ENTRIES: Final = (
    _quote(
        "pcrs",
        Kind.BY_PCR,
        "Quoted PCR values in the policy's bank, by index.",
        lambda view: {pcr: value.hex() for pcr, value in view.pcrs.items()},
    ),
    _quote(
        "firmware_version",
        Kind.UINT,
        "The TPM's firmware version as it signed it (TPM 2.0 Part 2, TPMS_ATTEST).",
        lambda view: view.claims.quote.firmware_version,
    ),
    _quote(
        "signature_hash",
        Kind.STRING,
        "Hash of the quote's signature: `sha256`, `sha384`, `sha512` or `sha1`.",
        lambda view: view.claims.quote.signature_hash.label,
    ),
    _quote(
        "clock.milliseconds",
        Kind.UINT,
        "Time the TPM was powered since it was last cleared.",
        lambda view: view.claims.quote.clock.clock,
    ),
    _quote(
        "clock.reset_count",
        Kind.UINT,
        "How often the TPM was reset (booted) since it was last cleared.",
        lambda view: view.claims.quote.clock.reset_count,
    ),
    _quote(
        "clock.restart_count",
        Kind.UINT,
        "How often the TPM was suspended or restarted since its last reset.",
        lambda view: view.claims.quote.clock.restart_count,
    ),
    _quote(
        "clock.safe",
        Kind.BOOL,
        "No later time was ever reported; false where a power loss may have set the clock back.",
        lambda view: view.claims.quote.clock.safe,
    ),
    _secure_boot("enabled", "Secure Boot was on before the OS loader ran.", lambda facts: facts.enabled, 7),
    _secure_boot(
        "setup_mode", "Keys could be replaced without a signature.", lambda facts: facts.setup_mode, 7, 1
    ),
    _secure_boot("audit_mode", "Images ran whatever their signature.", lambda facts: facts.audit_mode, 7, 1),
    _secure_boot(
        "deployed_mode", "The mode that only a signed change leaves.", lambda facts: facts.deployed_mode, 7, 1
    ),
    _boot(
        "kernel_command_line",
        Kind.STRING,
        "The kernel's command line, from whoever measured it.",
        lambda boot: boot.kernel_command_line,
        *_LINE_PCRS,
    ),
    _boot("kernel_arguments", Kind.STRINGS, "The same, split at white space.", _arguments, *_LINE_PCRS),
    _boot(
        "startup_locality",
        Kind.INT,
        "Locality the TPM was started from; 3 or 4 where a hardware root of trust did it.",
        lambda boot: boot.startup_locality,
        0,
        speaks_for=Claim.HARDWARE,
    ),
    _boot(
        "error_separators",
        Kind.INTS,
        "PCRs that firmware closed with the separator of an error.",
        lambda boot: list(boot.error_separators),
        speaks_for=Claim.HARDWARE,
    ),
    _boot(
        "unexplained_pcrs",
        Kind.INTS,
        "Quoted PCRs that the log does not lead to.",
        lambda boot: list(boot.unlogged_pcrs),
    ),
    _boot(
        "phases",
        Kind.STRINGS,
        "Boot phases systemd-pcrphase extended after the log ended, in order.",
        lambda boot: list(boot.boot_phases),
        UKI_PCR,
        speaks_for=Claim.EXECUTABLES,
    ),
    _events(
        "digests",
        Kind.LISTS_BY_PCR,
        "Digests measured into each quoted PCR that the log explains, in order.",
        _digests,
    ),
    _events(
        "images",
        Kind.STRINGS,
        "Digests of PCR 4 that are not proven to be anything but an image. Of a PE image it is the Authenticode"
        " digest.",
        _images,
        4,
    ),
    _events(
        "uki.sections",
        Kind.TEXT_MAP,
        "Section name to content digest of the unified kernel image; empty where none booted.",
        _sections,
        UKI_PCR,
    ),
    _identity(
        "endorsed_by",
        Kind.STRING,
        "Enrolment method that accepted the EK: `certificate`, `inventory`, `approve` or `tofu`.",
        lambda facts: facts.endorsed_by,
    ),
    _identity("ek.issuer", Kind.STRING, "Issuer of the validated EK certificate.", lambda f: f.issuer),
    _identity(
        "ek.manufacturer_id",
        Kind.STRING,
        "TPM manufacturer as the certificate writes it, for example `id:564D5700`.",
        lambda facts: facts.manufacturer_id,
    ),
    _identity(
        "ek.manufacturer", Kind.STRING, "Its name, where the id is a known one.", lambda f: f.manufacturer
    ),
    _identity("ek.model", Kind.STRING, "TPM model as the certificate writes it.", lambda f: f.model),
    _identity("ek.version", Kind.STRING, "TPM version as the certificate writes it.", lambda f: f.version),
    _identity("ek.virtual", Kind.BOOL, "The manufacturer makes virtual TPMs only.", lambda f: f.virtual),
)

CATALOGUE: Final[Mapping[str, ClaimEntry]] = {entry.name: entry for entry in _ENTRIES}
