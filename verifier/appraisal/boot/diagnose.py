"""Name what is wrong with a log that does not replay: which PCR, after which event, and which known quirk fits.

A name proves nothing by itself and changes no verdict; only what a deviation leads to, hash by hash, can be believed,
and only where a policy tolerates it (docs/quirks.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from verifier.appraisal.boot.deviation import Budget, Deviation, Reaches, Search, Track, repeated
from verifier.quirks import Certainty, Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import ParsedEventLog
from verifier.tcg.preimage import ALWAYS_COVERED

_FIRMWARE: Final = range(8)
_VMWARE_VERSION: Final = tuple("VMW".encode(encoding) for encoding in ("ascii", "utf-16-le"))
_VMWARE_DEVICE: Final = tuple("VMware Virtual ".encode(encoding) for encoding in ("ascii", "utf-16-le"))
"""As in the boot entries `EFI VMware Virtual SCSI Hard Drive`; `VMware ESXi` is a system on other people's firmware."""
_ENOUGH: Final = 2
_UNKNOWN: Final = "no known quirk explains it"


class Goal(Protocol):
    """Where the PCRs must get to."""

    def reached(self, pcr: int, bank: HashAlg, value: bytes) -> bool:
        """Whether `value` is the quoted one, or is led to it by what may follow any log (boot phases)."""

    def cost(self, pcr: int) -> int:
        """How many extends one such question takes."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What can be told of one PCR that does not replay.

    Attributes:
        quirk: None where nothing known fits.
        after_event: as `Deviation.after_event`; without a deviation, the first event whose own data contradicts its
            digest; None where nothing but the end value is known, which says of no event that it is sound.
        at_event: where the PCR diverges, to put several in order; None where that cannot be told.
        text: for people.
        repair: what to believe where the quirk is tolerated; None: nothing.
    """

    quirk: Quirk | None
    after_event: int | None
    at_event: int | None
    text: str
    repair: Deviation | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the replay came to.

    Attributes:
        banks: those that were replayed.
        failed: PCRs with events that lead to another value, each with the banks in which they do.
        believed: PCRs that replay in every bank.
    """

    log: ParsedEventLog
    banks: tuple[HashAlg, ...]
    failed: Mapping[int, Sequence[HashAlg]]
    believed: frozenset[int]

    def explained_firmware(self) -> int:
        """How many of PCRs 0 to 7 have events and replay."""
        measured = {event.pcr for event in self.log.events}
        return sum(pcr in self.believed and pcr in measured for pcr in _FIRMWARE)


def diagnose(replayed: Replayed, goal: Goal) -> Mapping[int, Diagnosis]:
    """A diagnosis for each PCR of `replayed.failed`. Costs a bounded number of hashes (`deviation.BUDGET`)."""
    budget = Budget()
    copies = repeated(replayed.log)
    return {pcr: _one(replayed, pcr, copies, goal, budget) for pcr in sorted(replayed.failed)}


def _one(replayed: Replayed, pcr: int, copies: list[frozenset[int]], goal: Goal, budget: Budget) -> Diagnosis:
    track = Track(replayed.log, pcr)
    first, *others = replayed.failed[pcr]
    reaches = Reaches(lambda value: goal.reached(pcr, first, value), goal.cost(pcr))
    for found in Search(track, first, copies, reaches, budget).found():
        if all(goal.reached(pcr, bank, track.value(bank, found)) for bank in others):
            if replayed.log.cut_at is not None and found.lacks_its_end:
                break  # it was cut off
            repair = found if _sound(found, track, replayed) else None
            return Diagnosis(found.quirk, found.after_event, found.at_event, found.text, repair)
    return _by_signature(replayed, track)


def _sound(found: Deviation, track: Track, replayed: Replayed) -> bool:
    """Whether the log's own events, in their order, are all there was, in every bank alike.

    What was put in between is known by nothing but the fit; what follows at the end can move no event. In a bank that
    replays as it is nothing can have been left out.
    """
    if found.quirk.entry.certainty is not Certainty.REPAIRED:
        return False
    exact = [bank for bank in replayed.banks if bank not in replayed.failed[track.pcr]]
    if exact and (found.dropped or found.locality is not None):
        return False
    return all(
        digest or position in found.dropped
        for bank in replayed.banks
        for position, digest in zip(track.positions, track.digests(bank), strict=True)
    )


def _by_signature(replayed: Replayed, track: Track) -> Diagnosis:
    """What fits, where no deviation was found. Data that contradicts its digest fits nothing but an edited log."""
    suspect = _contradiction(track, replayed.failed[track.pcr][0])
    if suspect is not None:
        text = f"the data of {track.name(suspect)} is not what its digest covers"
        return Diagnosis(None, suspect, suspect, text)
    quirk, text = _fitting(replayed, track.pcr)
    if quirk in (Quirk.TRUNCATED_LOG, Quirk.EXTENDED_AFTER_LOG):
        text += f"; if that is all, they part after {track.name(track.positions[-1])}, the last it has of this PCR"
    return Diagnosis(quirk, None, None, text)


def _contradiction(track: Track, bank: HashAlg) -> int | None:
    for position, digest in zip(track.positions, track.digests(bank), strict=True):
        event = track.log.events[position]
        if event.event_type in ALWAYS_COVERED and digest and digest != bank.digest(event.data):
            return position
    return None


def _fitting(replayed: Replayed, pcr: int) -> tuple[Quirk | None, str]:
    failed = replayed.failed
    if replayed.log.cut_at is not None:
        return (
            Quirk.TRUNCATED_LOG,
            "the log ends inside an event, and what is missing may have been extended into it",
        )
    exact = [bank for bank in replayed.banks if bank not in failed[pcr] and bank is not HashAlg.SHA1]
    if exact:
        return Quirk.BANK_DIGESTS_WRONG, f"in {exact[0].label} the same PCR replays"
    if any(other in failed and other != pcr for other in _FIRMWARE[1:]):
        return None, _UNKNOWN
    explained = replayed.explained_firmware()
    if pcr == 0 and explained >= _ENOUGH:
        name, whose = _whose_firmware(replayed.log)
        return name, f"of PCRs 0 to 7 it is the only one that does not{whose}"
    if pcr in Quirk.EXTENDED_AFTER_LOG.entry.pcrs and explained:
        text = "firmware's PCRs do, and this one is open to the operating system after the boot"
        return Quirk.EXTENDED_AFTER_LOG, text
    return None, _UNKNOWN


def _whose_firmware(log: ParsedEventLog) -> tuple[Quirk, str]:
    """A label that anyone can write; it chooses a name, and nothing else."""
    for event in log.events:
        version = event.event_type == EventType.EV_S_CRTM_VERSION and event.data.startswith(_VMWARE_VERSION)
        if version or any(label in event.data for label in _VMWARE_DEVICE):
            return Quirk.VMWARE_PCR0, ", and the log names VMware's virtual hardware"
    return Quirk.FIRMWARE_PCR0, ""
