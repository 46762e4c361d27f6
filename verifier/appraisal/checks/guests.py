"""Who speaks, by its own words: machine, boot, and whether it was seen before. None of it is proven."""

from __future__ import annotations

from msgspec import Struct

from verifier.appraisal.checks.clock import ClockRelation, describe_clock, history_finding
from verifier.appraisal.evidence import Evidence, History
from verifier.appraisal.lineage import Guest, Lineage, machine_of
from verifier.appraisal.place import Place
from verifier.appraisal.result import Finding, Severity, Status
from verifier.reasons import Reason
from verifier.tcg.attest import ClockInfo

_LOG_MARK = "log:"
_MARK_SIZE = 8


class Who(Struct, frozen=True):
    """What the guest says of itself, with what it left out filled in from who was seen last."""

    smbios_uuid: str | None
    boot_id: str | None
    returned: bool
    """Seen before, and somebody else since."""
    moved: bool
    """Another UUID than the line's."""
    same_kernel: bool


def identify(evidence: Evidence, clock: ClockInfo, line: Lineage) -> Who:
    """Hold what evidence says of its machine and boot against who was seen before."""
    uuid, newest = evidence.smbios_uuid, line.newest
    machine = machine_of(uuid)
    boot_id = evidence.boot_id
    if boot_id is None:
        boot_id = _boot_of(evidence, clock, newest, machine)
    if newest is not None and machine is None and boot_id == newest.boot_id:
        uuid, machine = newest.smbios_uuid, machine_of(newest.smbios_uuid)
    seen = [(machine_of(guest.smbios_uuid), guest.boot_id) for guest in line.guests]
    key = (machine, boot_id)
    of_line = machine_of(line.smbios_uuid)
    return Who(
        uuid,
        boot_id,
        returned=None not in key and key in seen[:-1] and key != seen[-1],
        moved=machine is not None and of_line is not None and machine != of_line,
        same_kernel=newest is None or None in {boot_id, newest.boot_id} or boot_id == newest.boot_id,
    )


def _boot_of(evidence: Evidence, clock: ClockInfo, newest: Guest | None, machine: str | None) -> str | None:
    """For a guest that tells no boot id.

    One that told it before is taken to have left it out. Where none is ever told (Windows), one log under one pair of
    counters is one boot: the log alone is not, because an image may boot twice with the same.
    """
    if newest is not None and machine in {None, machine_of(newest.smbios_uuid)}:
        told = newest.boot_id
        if told is not None and not told.startswith(_LOG_MARK):
            return told
    digest = evidence.boot_log_sha256
    if digest is None:
        return None
    return f"{_LOG_MARK}{digest[:_MARK_SIZE].hex()}:{clock.reset_count}.{clock.restart_count}"


def both_kernels(who: Who, clock: ClockRelation, line: Lineage) -> Finding | None:
    """Where the kernel's boot and the TPM's counters do not change together."""
    newest = line.newest
    if newest is None:
        return None
    if clock is ClockRelation.SAME_BOOT and not who.same_kernel:
        return history_finding(
            Reason.BOOT_ID_CHANGED,
            Status.FAILED,
            Severity.INFO,
            "another kernel, or another boot log, although the TPM was neither reset nor restarted",
            expected=newest.boot_id,
            actual=who.boot_id,
        )
    same = who.boot_id is not None and who.boot_id == newest.boot_id and not newest.parted
    if clock is ClockRelation.RESET and same:
        return history_finding(
            Reason.BOOT_ID_KEPT,
            Status.FAILED,
            Severity.INFO,  # the boot id is the guest's word: whoever did it on purpose tells another
            "the TPM was reset, and the kernel that runs is the one from before",
            expected="another boot id",
            actual=who.boot_id,
        )
    return None


def known_uuids(history: History, claimed: str | None) -> list[str]:
    """The UUIDs claimed with this TPM, one spelling of each, without those that are known to be copies'."""
    refused = set(map(machine_of, history.lineage.refused))
    found: dict[str, str] = {}
    for uuid in sorted({*history.smbios_uuids, *([claimed] if claimed is not None else [])}):
        machine = machine_of(uuid)
        if machine is not None and machine not in refused:
            found.setdefault(machine, uuid)
    return sorted(found.values())


def several_uuids(history: History, claimed: str | None) -> bool:
    """Whether there is more than one of them."""
    if history.smbios_uuids <= {claimed}:  # as of nearly every machine
        return False
    return len(known_uuids(history, claimed)) > 1


def listed(place: Place, history: History) -> tuple[str | None, str]:
    """The guests of an incident, for people: whoever was seen before, and who speaks now."""
    key = (machine_of(place.smbios_uuid), place.boot_id, place.parted)
    others = [
        guest
        for guest in history.lineage.guests
        if (machine_of(guest.smbios_uuid), guest.boot_id, guest.parted) != key
    ]
    shown = {machine_of(guest.smbios_uuid) for guest in others} | {key[0]}
    unseen = [uuid for uuid in known_uuids(history, None) if machine_of(uuid) not in shown]
    before = [*(f"SMBIOS UUID {uuid}" for uuid in unseen), *(describe(guest) for guest in others)]
    now = _words(place.smbios_uuid, place.hostname, place.boot_id, place.clock)
    return "; ".join(before) or None, now + ("" if place.address is None else f" from {place.address}")


def describe(guest: Guest) -> str:
    """One guest in one line."""
    words = _words(guest.smbios_uuid, guest.hostname, guest.boot_id, guest.clock)
    address = "" if guest.address is None else f" from {guest.address}"
    return f"{words}{address}, seen {guest.seen_at:%Y-%m-%dT%H:%M:%SZ}"


def _words(uuid: str | None, hostname: str | None, boot_id: str | None, clock: ClockInfo) -> str:
    name = "" if hostname is None else f" ({hostname})"
    boot = "" if boot_id is None else f", boot {boot_id}"
    return f"SMBIOS UUID {uuid or 'not told'}{name}{boot}, {describe_clock(clock)}"
