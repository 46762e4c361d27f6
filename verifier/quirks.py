"""Known deviations of real boot logs, by name. A name is a diagnosis, never a pardon: that takes a policy's own words.

Append only: a name, once released, keeps its meaning. `docs/quirks.md` is made from here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Certainty(enum.Enum):
    """How much stands behind a quirk's name."""

    HARMLESS = "harmless"
    """Read over by the parser: nothing that was extended is in doubt, so no policy need tolerate it."""
    REPAIRED = "repaired"
    """The log's own events, less or later than they stand there, lead to the quoted value exactly. Where a policy
    tolerates it, those events are proven as those of any log that replays."""
    PROVEN = "proven"
    """Arithmetic leads to the quoted value, but not from the log's own events alone: none of them is believed."""
    FITS = "fits"
    """The signature fits, and a log that was tampered with can have it too: no event is believed."""


class Quirk(enum.StrEnum):
    """Stable names."""

    PADDED = "padded"
    SPEC_ID_SIZE_OMITS_VENDOR_INFO = "spec-id-size-omits-vendor-info"
    STARTUP_LOCALITY_PADDED = "startup-locality-padded"
    MISSING_STARTUP_LOCALITY = "missing-startup-locality"
    EXTRA_TAIL_EVENTS = "extra-tail-events"
    FINAL_EVENTS_DUPLICATED = "final-events-duplicated"
    EVENT_NOT_EXTENDED = "event-not-extended"
    EXIT_BOOT_SERVICES_UNLOGGED = "exit-boot-services-unlogged"
    BANK_CAPPED = "bank-capped"
    EVENT_UNLOGGED = "event-unlogged"
    PCR_NEVER_EXTENDED = "pcr-never-extended"
    BANK_DIGESTS_WRONG = "bank-digests-wrong"
    VMWARE_PCR0 = "vmware-pcr0"
    FIRMWARE_PCR0 = "firmware-pcr0"
    EXTENDED_AFTER_LOG = "extended-after-log"
    TRUNCATED_LOG = "truncated-log"
    ZERO_LENGTH_LOG = "zero-length-log"

    @property
    def entry(self) -> QuirkEntry:
        """What it is, where it can occur, and what to do about it."""
        from verifier.quirk_texts import QUIRKS  # noqa: PLC0415 - the texts import this enum

        return QUIRKS[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuirkEntry:
    """One quirk explained.

    Attributes:
        pcrs: where it can occur; empty where it is one of the whole log, not of a PCR.
        explanation: what the log shows, and what made it so as far as anyone knows.
        shown_by: how it is told from other faults.
        source: who reported it, or where it can be seen.
    """

    title: str
    certainty: Certainty
    pcrs: frozenset[int]
    explanation: str
    shown_by: str
    source: str
    remedy: str

    @property
    def tolerable(self) -> bool:
        """Whether a policy can tolerate it; what is harmless needs no leave."""
        return self.certainty is not Certainty.HARMLESS

    @property
    def of_whole_log(self) -> bool:
        """Whether it has no PCR."""
        return not self.pcrs
