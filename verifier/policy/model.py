"""A policy, parsed and checked: frozen rules over proven claims."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from verifier.findings import Severity
from verifier.policy.catalogue import CATALOGUE
from verifier.policy.cel import Program
from verifier.policy.runtime.section import RuntimeSection
from verifier.quirks import Quirk
from verifier.reasons import Claim
from verifier.tcg.algorithms import HashAlg

_CLOCK: Final = "quote.clock."


class LogUse(enum.StrEnum):
    """What a policy makes of the boot log."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    """Judged when it is there; its absence is a warning."""
    IGNORED = "ignored"


class Occurs(enum.StrEnum):
    """How often an event rule's selection must be found."""

    ONCE = "once"
    AT_LEAST_ONCE = "at-least-once"
    OPTIONAL = "optional"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRule:
    """What must be quoted, and signed how."""

    bank: HashAlg
    pcrs: frozenset[int]
    signature_hashes: frozenset[HashAlg]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleHead:
    """What every rule has: a name, how bad its failure is, which AR4SI claim it speaks for, what to say."""

    id: str
    severity: Severity
    claim: Claim
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Digests that a rule accepts, each with a note for people (which kernel, which release)."""

    digests: Mapping[bytes, str]

    def describe(self, label: str = "") -> str:
        """For a finding: every digest with its note (or `label` where it has none), at most four in full."""
        named = [(digest.hex(), note or label) for digest, note in list(self.digests.items())[:4]]
        shown = [f"{digest} ({note})" if note else digest for digest, note in named]
        more = len(self.digests) - len(shown)
        return " or ".join(shown) + (f" or {more} more" if more else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrRule:
    """A quoted PCR has one of the golden values."""

    head: RuleHead
    pcr: int
    accepted: Accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """Events of a PCR with a *proven* name, or with one of the digests, occur as often as stated.

    With a name, every event of that name must have an accepted digest. Without one, only the events with
    such a digest are counted. Types cannot select: they are not measured, so a forger chooses them.
    """

    head: RuleHead
    pcr: int
    name: str | None
    occurs: Occurs
    accepted: Accepted | None
    """None: any digest; only where the name must never occur."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One place of a golden sequence."""

    label: str
    accepted: Accepted
    optional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRule:
    """The measured events of one PCR are exactly these, in this order."""

    head: RuleHead
    pcr: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureBootRule:
    """Secure Boot was measured as on (or off) before the OS loader ran."""

    head: RuleHead
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLineRule:
    """The proven kernel command line is one of these, or has all and none of these words."""

    head: RuleHead
    any_of: frozenset[str]
    require: frozenset[str]
    forbid: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationsRule:
    """What must be revoked already, in the dbx that firmware measured and in shim's level.

    Attributes:
        required: SHA-256, whatever the policy's bank: image digests, certificates (of the DER), or to-be-signed
            parts of certificates; an entry that is a security version of Windows is met by a later version.
        sbat: lowest generation that shim's level must name per component.
    """

    head: RuleHead
    required: Accepted
    sbat: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CelRule:
    """An expression over proven claims is true."""

    head: RuleHead
    program: Program


Rule = PcrRule | EventRule | SequenceRule | SecureBootRule | CommandLineRule | RevocationsRule | CelRule


def references(rule: Rule) -> tuple[str, ...]:
    """The claims of the catalogue a rule reads; none for rules on PCRs and events."""
    match rule:
        case CelRule():
            return rule.program.references
        case SecureBootRule():
            return ("boot.secure_boot.enabled",)
        case CommandLineRule():
            return ("boot.kernel_command_line",)
        case RevocationsRule():
            dbx = ("boot.secure_boot.dbx.digests",) if rule.required.digests else ()
            return (*dbx, "boot.shim.sbat_level") if rule.sbat else dbx
        case _:
            return ()


def reads_log(rule: Rule) -> bool:
    """Whether a rule cannot be judged without a boot log."""
    if isinstance(rule, (EventRule, SequenceRule)):
        return True
    return any(CATALOGUE[name].reads_log for name in references(rule))


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A quirk of the boot log that is no contraindication, where it is expected.

    Attributes:
        pcrs: those it is expected in; empty for a quirk of the whole log.
        severity: how grave it is all the same; never `contraindicated`.
    """

    quirk: Quirk
    pcrs: frozenset[int]
    severity: Severity
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """An appraisal policy for reference values (RFC 9334, section 4.1), one immutable revision.

    Attributes:
        revision: hex SHA-256 of the source bytes, reference values included.
        validity: how long a verdict under it may be relied on.
        unjudged: PCR to the written reason why no rule speaks for it.
        tolerated: quirks of the boot log, in the order of the document; each with its PCR at most once.
        runtime: what IMA lists are judged by; None: the policy does not read them.
    """

    id: str
    revision: str
    description: str
    validity: timedelta
    quote: QuoteRule
    boot_log: LogUse
    rules: tuple[Rule, ...]
    unjudged: Mapping[int, str]
    tolerated: tuple[Toleration, ...] = ()
    runtime: RuntimeSection | None = None
    reads_clock: bool = field(init=False, compare=False, repr=False)
    """Whether a rule reads the TPM's clock. Only CEL expressions can; a test holds every claim of the catalogue against this."""

    def __post_init__(self) -> None:
        """Work out once what is asked at every attestation."""
        read = any(name.startswith(_CLOCK) for rule in self.rules for name in references(rule))
        object.__setattr__(self, "reads_clock", read)

    @property
    def needs_boot_log(self) -> bool:
        """Whether any rule reads the log."""
        return self.boot_log is not LogUse.IGNORED
