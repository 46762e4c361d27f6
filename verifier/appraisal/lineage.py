"""What is known of the line of states a TPM went through, and who showed them. Pure data and its transitions.

A TPM's state moves one way: its clock and counters rise, its ratchet grows. Whatever shows a state that is not after
the last one has *parted* from the line: an older state was restored, or a copy runs. See docs/clones.md.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Final

from msgspec import Struct, structs

from verifier.appraisal.smbios import canonical_uuid, swapped_uuid
from verifier.tcg.attest import ClockInfo

MAX_GUESTS: Final = 4
MAX_TRAIL: Final = 8
MAX_REFUSED: Final = 64
_UUID_DASHES: Final = 4
_UUID_LENGTH: Final = 36


class IncidentKind(enum.StrEnum):
    """What is wrong with a line, until an operator has said what to make of it. In order of gravity."""

    CLONE_SUSPECTED = "clone-suspected"
    """Different SMBIOS UUIDs claim one TPM; its state shows nothing of it."""
    RATCHET_FOREIGN = "ratchet-foreign"
    """The ratchet holds what this verifier never led to: its index was made anew, or it is a copy's."""
    ROLLBACK = "rollback"
    """An older state came back: restored, or a copy of which nothing else is known yet."""
    CLONE_PROVEN = "clone-proven"
    """Two lines of state with one identity both went on after they had parted."""


class Guest(Struct, frozen=True, kw_only=True):
    """A machine as it showed itself. Clock and ratchet are proven.

    UUID, boot id and host name are its own words; `address` is where its connection came from, which may be a proxy's.
    Where it tells no boot id, that is the digest of its boot log and the TPM's counters of that boot.
    """

    smbios_uuid: str | None
    boot_id: str | None
    hostname: str | None
    clock: ClockInfo
    ratchet: bytes | None
    seen_at: datetime
    address: str | None = None
    parted: bool = False
    """It showed a state that is not of the line."""


class Incident(Struct, frozen=True, kw_only=True):
    """Something an operator has to resolve. `parted`: the ratchet of the evidence that parted last, if it had one."""

    kind: IncidentKind
    since: datetime
    parted: bytes | None = None


class BootCounter(Struct, frozen=True, kw_only=True):
    """Windows' count of its boots; `id` names the counter, which is another one after the TPM was cleared."""

    id: int
    value: int


class Lineage(Struct, frozen=True, kw_only=True):
    """One line of TPM states, as far as it is proven.

    Attributes:
        clock: last proven of this line; None before the first, and after an operator had it begin anew.
        boot_counter: last proven, for Windows.
        smbios_uuid: last claimed by evidence of this line.
        ratchet: content of the NV index last proven of this line; None where the TPM never showed one.
        ratchet_next: what follows if the value that came with the last verdict is extended.
        step: number of the last value that was extended. Never goes back, even when the line begins anew.
        moved_at: when its effect was first seen.
        idle: how often in a row the content was shown unchanged although a value had come for it.
        trail: contents the line has left behind, newest last: its first, and the latest.
        guests: who showed this TPM lately, whether of this line or parted from it; last seen last.
        incident: open until resolved.
        refused: SMBIOS UUIDs an operator has called copies.
        must_enroll: an operator wants a new enrolment before any evidence counts.
    """

    clock: ClockInfo | None = None
    boot_counter: BootCounter | None = None
    smbios_uuid: str | None = None
    ratchet: bytes | None = None
    ratchet_next: bytes | None = None
    step: int = 0
    moved_at: datetime | None = None
    idle: int = 0
    trail: tuple[bytes, ...] = ()
    guests: tuple[Guest, ...] = ()
    incident: Incident | None = None
    refused: tuple[str, ...] = ()
    must_enroll: bool = False

    @property
    def newest(self) -> Guest | None:
        """Who was seen last."""
        return self.guests[-1] if self.guests else None

    def refuses(self, smbios_uuid: str | None) -> bool:
        """Whether an operator has called the machine of this UUID a copy."""
        return bool(self.refused) and machine_of(smbios_uuid) in set(map(machine_of, self.refused)) - {None}


@lru_cache(maxsize=1024)  # asked of the same few UUIDs several times within one appraisal
def machine_of(smbios_uuid: str | None) -> str | None:
    """One name for a machine, however its UUID is spelt; None for a UUID that names none (zeros, placeholders)."""
    if smbios_uuid is None:
        return None
    canonical = canonical_uuid(smbios_uuid)
    if canonical is not None:
        return min(canonical, swapped_uuid(canonical))
    text = smbios_uuid.strip().lower()
    if len(text) == _UUID_LENGTH and text.count("-") == _UUID_DASHES:
        return None
    return text or None


def left_behind(line: Lineage, *contents: bytes | None) -> tuple[bytes, ...]:
    """The trail with these contents at its end.

    Its first stays: it is what the agent began with, and no value that could prove it later led there.
    """
    new = [content for content in contents if content is not None]
    trail = [one for one in line.trail if one not in new] + new
    return tuple(trail if len(trail) <= MAX_TRAIL else [trail[0], *trail[1 - MAX_TRAIL :]])


def seen(line: Lineage, guest: Guest) -> tuple[Guest, ...]:
    """The guests, `guest` last; entries of the same machine and boot are replaced.

    Where they become too many, earlier boots of a machine go first, so that its reboots push no other guest out.
    """
    key = guest_key(guest)
    kept = [one for one in line.guests if guest_key(one) != key]
    kept.append(guest)
    while len(kept) > MAX_GUESTS:
        spare = (one for number, one in enumerate(kept) if _has_later_boot(one, kept[number + 1 :]))
        kept.remove(next(spare, kept[0]))
    return tuple(kept)


def _has_later_boot(guest: Guest, later: Iterable[Guest]) -> bool:
    who = machine_of(guest.smbios_uuid), guest.parted
    return any((machine_of(one.smbios_uuid), one.parted) == who for one in later)


def guest_key(guest: Guest) -> tuple[str | None, str | None, bool]:
    """What tells guests apart. Of a copy with the same words, at least that its state is another is known."""
    return machine_of(guest.smbios_uuid), guest.boot_id, guest.parted


def begun_anew(line: Lineage) -> Lineage:
    """For an enrolment that somebody with authority let in: whatever is shown next is where the line goes on.

    A proven clone stays as it is: which of the two has enrolled, nobody can tell.
    """
    if line.incident is not None and line.incident.kind is IncidentKind.CLONE_PROVEN:
        return structs.replace(line, must_enroll=False)
    return _rebased(line, None, incident=None, must_enroll=False)


def kept(line: Lineage, guest: Guest, claimed: Iterable[str]) -> Lineage:
    """For an operator's word that this guest is the one; every UUID of `claimed` but its own is a copy's.

    The line goes on from the state that it showed last.
    """
    wanted = machine_of(guest.smbios_uuid)
    others = {uuid for uuid in (*claimed, *line.refused) if machine_of(uuid) not in {wanted, None}}
    rebased = _rebased(line, guest, incident=None, must_enroll=line.must_enroll)
    return structs.replace(
        rebased,
        refused=tuple(sorted(others))[:MAX_REFUSED],
        guests=(structs.replace(guest, parted=False),),
    )


def without(line: Lineage, smbios_uuid: str | None) -> Lineage:
    """For an operator's demand that a machine enrols again: that of this UUID, or None for whoever speaks.

    A UUID is refused until its machine comes with another TPM. Without one, no evidence counts until somebody has
    enrolled with this TPM again.
    """
    if smbios_uuid is None:
        return _rebased(line, None, incident=None, must_enroll=True)
    rest = tuple(
        structs.replace(guest, parted=False)
        for guest in line.guests
        if machine_of(guest.smbios_uuid) != machine_of(smbios_uuid)
    )
    refused = tuple(sorted({*line.refused, smbios_uuid}))[:MAX_REFUSED]
    rebased = _rebased(line, rest[-1] if rest else None, incident=None, must_enroll=line.must_enroll)
    return structs.replace(rebased, refused=refused, guests=rest)


def _rebased(line: Lineage, on: Guest | None, *, incident: Incident | None, must_enroll: bool) -> Lineage:
    content = None if on is None else on.ratchet
    trail = left_behind(line, None if line.ratchet == content else line.ratchet)
    return structs.replace(
        line,
        clock=None if on is None else on.clock,
        boot_counter=None,
        smbios_uuid=None if on is None else on.smbios_uuid,
        ratchet=content,
        ratchet_next=None,
        idle=0,
        trail=tuple(one for one in trail if one != content),
        incident=incident,
        must_enroll=must_enroll,
    )
