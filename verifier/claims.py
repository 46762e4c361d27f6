"""PURE frozen facts that were proven; the only thing a policy sees.

Every value here was bound to a quoted PCR (or to the quote itself) before it was put in. Data a log merely
carries never reaches this module.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import ClockInfo


class QuoteFacts(NamedTuple):
    """What a verified quote proves: these PCR values, at this clock, signed by this AK over our nonce."""

    pcrs: Mapping[HashAlg, Mapping[int, bytes]]
    clock: ClockInfo
    firmware_version: int
    signature_hash: HashAlg


class Binding(enum.Enum):
    """How an event's data relates to the digest that was extended."""

    BOUND = "bound"
    """The digest was recomputed from the data in the log under the rule of its type."""
    KNOWN = "known"
    """The digest equals that of a value this verifier knows (a section name, a supplied preimage)."""
    UNBOUND = "unbound"
    """The digest covers something that is not in the log; the data is a label nobody signed."""
    UNMEASURED = "unmeasured"
    """EV_NO_ACTION: nothing was extended."""


class EventFact(NamedTuple):
    """One event. Its digests are proven; `name` and `text` are there only when they are.

    `digests` is empty where nothing was proven: for EV_NO_ACTION, and for every event of a PCR that was not
    quoted or that the log does not explain. The type of an UNBOUND event is a label nobody signed.

    A named tuple, not a dataclass: there is one per event of every log, and it costs a quarter to make.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nothing needs
    pcr: int
    event_type: int
    type_name: str
    digests: Mapping[HashAlg, bytes]
    binding: Binding
    name: str | None
    """Stable proven name within its type: a variable (`SecureBoot`), a UKI section (`.cmdline`), or None."""
    text: str | None
    """Proven text of the event for people and for text rules, or None."""
    after_separator: bool
    """True when a separator of this PCR came before it: it belongs to the OS loader, not to firmware."""


@dataclass(frozen=True, slots=True)
class SecureBootFacts:
    """Secure Boot as measured into PCR 7; None where no bound event before the separator says it."""

    enabled: bool | None = None
    setup_mode: bool | None = None
    audit_mode: bool | None = None
    deployed_mode: bool | None = None


@dataclass(frozen=True, slots=True)
class BootFacts:
    """What a replayed boot log proves."""

    digest: bytes
    """SHA-256 of the log's bytes; names the blob, proves nothing."""
    banks: tuple[HashAlg, ...]
    """Quoted banks the log was replayed in; PCRs that failed in any of them are among `unlogged_pcrs`."""
    events: tuple[EventFact, ...]
    secure_boot: SecureBootFacts
    kernel_command_line: str | None
    """Bound by GRUB's text or by a supplied preimage of the measured digest."""
    startup_locality: int | None
    unlogged_pcrs: tuple[int, ...] = ()
    """Quoted PCRs that the log does not explain, or contradicts; nothing was claimed from them."""
    error_separators: tuple[int, ...] = ()
    """PCRs that firmware closed with the separator of an error: their earlier events are not what they should be."""
    boot_phases: tuple[str, ...] = ()
    """Words systemd-pcrphase extended into PCR 11 after the log ended, in order; proven by the quoted value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementFacts:
    """On whose word the EK is a TPM's, and what that word says of it.

    All but `endorsed_by` is the statement of the CA that issued the EK certificate, as trustworthy as the trust
    anchor its path ends at; None where no validated certificate says it.
    """

    endorsed_by: str
    """Enrolment method that accepted the EK: `certificate`, `inventory`, `approve` or `tofu`."""
    issuer: str | None = None
    manufacturer_id: str | None = None
    """As the TCG Vendor ID Registry writes it: `id:564D5700`."""
    manufacturer: str | None = None
    """Its name, where the id is a known one."""
    model: str | None = None
    version: str | None = None
    virtual: bool | None = None
    """A TPM in software behind a hypervisor; None where the manufacturer is not known to make only one kind."""


@dataclass(frozen=True, slots=True)
class ProvenClaims:
    """Everything a policy may judge."""

    quote: QuoteFacts
    boot: BootFacts | None
    endorsement: EndorsementFacts | None = None
    """None where no activation bound the AK to an endorsed EK (an offline bundle)."""
