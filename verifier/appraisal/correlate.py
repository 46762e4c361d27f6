"""Which machine of the inventory is this guest, and does its endorsement key belong there?

The endorsement key is proven (by credential activation), the guest's SMBIOS UUID is its own word, and the
inventory is its source's word. So a key on one machine names that machine; the UUID can only agree or disagree.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from verifier.appraisal.inventory import InventoryEvent, InventoryMachine, SourceStatus
from verifier.appraisal.smbios import same_uuid


class Outcome(enum.StrEnum):
    """How a guest and the inventories fit together."""

    MATCH = "match"
    """Key and SMBIOS UUID are those of one machine."""
    EK_ONLY = "ek-only"
    """The key is on exactly one machine; the guest says no UUID, or the inventory lists none for it."""
    EK_OF_ANOTHER_MACHINE = "ek-of-another-machine"
    """The key is on exactly one machine, and the guest's UUID is not that machine's."""
    EK_ON_SEVERAL_MACHINES = "ek-on-several-machines"
    """Several machines carry the key: copies of one vTPM."""
    UUID_KNOWN_EK_UNKNOWN = "uuid-known-ek-unknown"
    """The machine is known, with other keys than this: its vTPM was replaced, or restored without its state."""
    EK_NOT_LISTED = "ek-not-listed"
    """The machine is known, but its source lists no key for it: nothing can be said."""
    UNKNOWN = "unknown"
    """Neither key nor UUID is in any inventory."""
    INVENTORY_STALE = "inventory-stale"
    """The sources this would rest on are not current; `last_known` says what they would say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKeys:
    """What a guest is known by: the SHA-256 fingerprint of its EK, proven, and the UUID it claims."""

    ek_fingerprint: bytes
    smbios_uuid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """The answer, with what a finding needs.

    Attributes:
        outcome: see `Outcome`.
        machine: the machine this guest is taken to be, or None where that cannot be said.
        others: further machines concerned: the key's true owner, or all that share the key.
        explanation: one or two sentences for people, naming the machines.
        last_known: with INVENTORY_STALE, the outcome according to what is held; otherwise None.
        stale_sources: sources that are not current, whether the answer rests on them or not.
    """

    outcome: Outcome
    machine: InventoryMachine | None
    others: tuple[InventoryMachine, ...]
    explanation: str
    last_known: Outcome | None = None
    stale_sources: tuple[str, ...] = ()

    @property
    def machines(self) -> tuple[InventoryMachine, ...]:
        """Every machine concerned."""
        return self.others if self.machine is None else (self.machine, *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryView:
    """All that the inventories say of one attester at one moment.

    Attributes:
        correlation: which machine it is.
        events: of the machines concerned, newest first.
        news_since: events from then on are news, or may explain what is still open.
    """

    correlation: Correlation
    events: tuple[InventoryEvent, ...] = ()
    news_since: datetime | None = None


def correlate(
    guest: GuestKeys,
    *,
    by_ek: Sequence[InventoryMachine],
    by_uuid: Sequence[InventoryMachine],
    sources: Sequence[SourceStatus],
    now: datetime,
    max_age: timedelta,
) -> Correlation:
    """Judge a guest by what the inventories hold.

    Proves nothing by itself: MATCH means that the operator's sources assign exactly this key to the machine the
    guest says it is. It does not prove that no copy of the vTPM runs outside those sources.

    Args:
        guest: proven key, claimed UUID.
        by_ek: machines that list the key.
        by_uuid: machines whose SMBIOS UUID is the guest's in either spelling.
        sources: how every configured source stands.
        now: aware time.
        max_age: a source last known current longer ago than this is stale; so is one never read.
    """
    namesakes = _distinct(by_uuid)
    owners = _distinct(one for one in by_ek if not _superseded(one, namesakes, guest))
    answer = _judge(guest, owners, namesakes)
    stale = _stale(sources, now, max_age)
    answer = replace(answer, stale_sources=stale)
    if not _rests_on_stale(answer, frozenset(stale)):
        return answer
    return replace(
        answer,
        outcome=Outcome.INVENTORY_STALE,
        last_known=answer.outcome,
        explanation=f"not current: {', '.join(stale)}. When last read: {answer.explanation}",
    )


def _judge(
    guest: GuestKeys, owners: tuple[InventoryMachine, ...], namesakes: tuple[InventoryMachine, ...]
) -> Correlation:
    if len(owners) > 1:
        return _shared(guest, owners)
    if owners:
        return _owned(guest, owners[0], namesakes)
    if namesakes:
        return _known_by_uuid(namesakes)
    claimed = f"SMBIOS UUID {guest.smbios_uuid}" if guest.smbios_uuid else "no SMBIOS UUID"
    text = f"no inventory lists this endorsement key, nor a machine with what the guest claims ({claimed})"
    return Correlation(outcome=Outcome.UNKNOWN, machine=None, others=(), explanation=text)


def _shared(guest: GuestKeys, owners: tuple[InventoryMachine, ...]) -> Correlation:
    claimed = [owner for owner in owners if same_uuid(guest.smbios_uuid, owner.smbios_uuid)]
    machine = claimed[0] if len(claimed) == 1 else None
    text = f"{len(owners)} machines carry this endorsement key: {_names(owners)}"
    if machine is not None:
        text += f"; the guest says it is {machine.ref}"
    return Correlation(
        outcome=Outcome.EK_ON_SEVERAL_MACHINES,
        machine=machine,
        others=tuple(owner for owner in owners if owner is not machine),
        explanation=text,
    )


def _owned(guest: GuestKeys, owner: InventoryMachine, namesakes: tuple[InventoryMachine, ...]) -> Correlation:
    if guest.smbios_uuid is None or owner.smbios_uuid is None:
        who = "the guest says none" if guest.smbios_uuid is None else "the inventory lists none for it"
        text = f"the endorsement key is that of {owner.ref}; SMBIOS UUIDs were not compared: {who}"
        return Correlation(outcome=Outcome.EK_ONLY, machine=owner, others=(), explanation=text)
    if same_uuid(guest.smbios_uuid, owner.smbios_uuid):
        text = f"endorsement key and SMBIOS UUID are those of {owner.ref}"
        return Correlation(outcome=Outcome.MATCH, machine=owner, others=(), explanation=text)
    text = (
        f"the endorsement key is that of {owner.ref} with SMBIOS UUID {owner.smbios_uuid}, "
        f"but the guest says {guest.smbios_uuid}"
    )
    text += f", which is {_names(namesakes)}" if namesakes else ", which no inventory knows"
    machine = namesakes[0] if len(namesakes) == 1 else None
    others = (owner, *(one for one in namesakes if one is not machine))
    return Correlation(
        outcome=Outcome.EK_OF_ANOTHER_MACHINE, machine=machine, others=others, explanation=text
    )


def _known_by_uuid(namesakes: tuple[InventoryMachine, ...]) -> Correlation:
    with_keys = tuple(one for one in namesakes if one.ek_fingerprints)
    machine = namesakes[0] if len(namesakes) == 1 else None
    others = () if machine is not None else namesakes
    if len(with_keys) == len(namesakes):
        text = (
            f"{_names(namesakes)} has this SMBIOS UUID and another endorsement key: "
            "its vTPM was replaced, or restored without its state"
        )
        outcome = Outcome.UUID_KNOWN_EK_UNKNOWN
    else:
        without = tuple(one for one in namesakes if not one.ek_fingerprints)
        vtpm = " (it has no vTPM)" if all(one.has_vtpm is False for one in without) else ""
        text = f"{_names(without)} has this SMBIOS UUID, but its inventory lists no endorsement key{vtpm}"
        outcome = Outcome.EK_NOT_LISTED
    return Correlation(outcome=outcome, machine=machine, others=others, explanation=text)


def _stale(sources: Sequence[SourceStatus], now: datetime, max_age: timedelta) -> tuple[str, ...]:
    return tuple(
        source.name for source in sources if source.synced_at is None or now - source.synced_at > max_age
    )


def _rests_on_stale(answer: Correlation, stale: frozenset[str]) -> bool:
    """Would a current inventory perhaps say otherwise?

    A machine that was found speaks for itself as long as its own source is current. That nothing was found is
    only sure when every source is.
    """
    if answer.outcome is Outcome.UNKNOWN:
        return bool(stale)
    return any(machine.key.source in stale for machine in answer.machines)


def _distinct(machines: Iterable[InventoryMachine]) -> tuple[InventoryMachine, ...]:
    """One record per machine: what a file says of a machine that a vCenter lists too is the same machine.

    Records of one source are always different machines, and so are those of two vCenters: a machine belongs to
    one of them, and a copy of its files registered at another keeps every UUID. The vCenter's record stands.
    """
    kept: list[InventoryMachine] = []
    for machine in sorted(machines, key=lambda one: (one.vcenter is None, one.key)):
        if not any(_same_machine(machine, other) for other in kept):
            kept.append(machine)
    return tuple(kept)


def _same_machine(one: InventoryMachine, other: InventoryMachine) -> bool:
    if one.key.source == other.key.source or (one.vcenter is not None and other.vcenter is not None):
        return one.key == other.key
    if one.instance_uuid is not None and other.instance_uuid is not None:
        return one.instance_uuid == other.instance_uuid
    if one.smbios_uuid is not None and other.smbios_uuid is not None:
        return same_uuid(one.smbios_uuid, other.smbios_uuid)
    return True  # they share a key, and a list that gives no UUID does not say that it is another machine


def _superseded(listed: InventoryMachine, namesakes: tuple[InventoryMachine, ...], guest: GuestKeys) -> bool:
    """True for a file's record of a machine to which its vCenter gives other keys: the vCenter knows better."""
    return listed.vcenter is None and any(
        one.vcenter is not None
        and one.ek_fingerprints
        and guest.ek_fingerprint not in one.ek_fingerprints
        and listed.smbios_uuid is not None
        and _same_machine(listed, one)
        for one in namesakes
    )


def _names(machines: Sequence[InventoryMachine]) -> str:
    return ", ".join(f"{one.ref}{' (a template)' if one.template else ''}" for one in machines)
