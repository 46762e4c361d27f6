"""What is right, said as simply as it can be: machines, their TPMs' pasts, and what the verifier has heard of them.

A TPM's past is the list of attestations that moved its ratchet. The verifier knows the last one of each line: who shows
it goes on, whoever shows another has parted. Clocks count besides, as a state can go back without its past being another.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.harness import Guest
from tests.simulator import Clock

VALIDITY = timedelta(minutes=10)
TIERS = ("affirming", "warning", "contraindicated")
REMEMBERED = 4
Key = tuple[str, str, bool]
"""UUID, boot id, and whether its state had parted."""
_events = itertools.count(1)


@dataclass
class Told:
    """A verdict as it was given."""

    status: str
    judged_at: datetime


@dataclass
class Line:
    """An attester: one EK, and all that speak with it."""

    attester_id: str
    tenant: str
    uuids: set[str]
    lifecycle: str = "enrolled"
    tip: int | None = None
    """The last attestation that moved it on; None: whatever is shown next is where it goes on."""
    clock: Clock | None = None
    told: list[Told] = field(default_factory=list)
    dropped: int = 0
    """Verdicts that are kept no longer."""
    grave: bool = False
    """An older state was shown, or another way on, and nobody has said what to make of it."""
    suspected: bool = False
    refused: set[str] = field(default_factory=set)
    seen: list[Key] = field(default_factory=list)
    last: Machine | None = None
    """Who spoke last, and what it showed."""
    last_name: tuple[str, str] = ("", "")
    last_shown: tuple[int | None, Clock | None] = (None, None)

    @property
    def latest(self) -> Told | None:
        return self.told[-1] if self.told else None

    def has_returned(self, machine: Machine) -> bool:
        """Whether its kernel was heard before and another since: it was alive all the while."""
        names = [key[:2] for key in self.seen]
        return machine.name in names[:-1] and machine.name != names[-1]

    def remember(self, machine: Machine, *, parted: bool) -> None:
        """Who spoke, last seen last; of earlier boots of a machine first, no more than four are remembered."""
        key = (*machine.name, parted)
        self.seen = [*(one for one in self.seen if one != key), key]
        while len(self.seen) > REMEMBERED:
            who = [(uuid, apart) for uuid, _, apart in self.seen]
            spare = next((at for at, one in enumerate(who) if one in who[at + 1 :]), 0)
            del self.seen[spare]

    def lifecycle_at(self, now: datetime) -> str:
        if (
            self.lifecycle == "enrolled"
            and self.latest is not None
            and now >= self.latest.judged_at + VALIDITY
        ):
            return "stale"
        return self.lifecycle

    def status_at(self, now: datetime) -> str | None:
        """None: nothing was ever judged."""
        if self.latest is None:
            return None
        match self.lifecycle_at(now):
            case "revoked":
                return "contraindicated"
            case "enrolled":
                return self.latest.status
            case _:
                return "none"


@dataclass
class Machine:
    """A guest: what its TPM went through, and how it has booted."""

    guest: Guest
    line: Line
    uuid: str
    past: list[int] = field(default_factory=list)
    secure: bool = True

    @property
    def shows(self) -> int | None:
        return self.past[-1] if self.past else None

    @property
    def name(self) -> tuple[str, str]:
        return self.uuid, self.guest.boot_id

    @property
    def identity(self) -> dict[str, str]:
        return {"hostname": f"host-{self.uuid}", "smbios_uuid": self.uuid}


def went_back(clock: Clock, before: Clock | None) -> bool:
    """Whether this is a state from before."""
    if before is None:
        return False
    counts, known = (clock.reset_count, clock.restart_count), (before.reset_count, before.restart_count)
    return counts < known or clock.clock < before.clock


def judge(machine: Machine, severity: str, now: datetime) -> str:
    """The verdict on what this machine shows now; the line has heard it then."""
    line, clock = machine.line, machine.guest.tpm.clock
    if not machine.past:
        machine.past.append(next(_events))  # its index is made at first use
    parted = line.tip is not None and machine.shows != line.tip
    parted = parted or went_back(clock, line.clock)
    line.uuids.add(machine.uuid)
    line.grave = line.grave or parted or line.has_returned(machine)
    line.remember(machine, parted=parted)
    line.suspected = line.suspected or len(line.uuids - line.refused) > 1
    if not parted:
        if line.tip is not None:  # else it is taken as it stands
            machine.past.append(next(_events))
        line.tip, line.clock = machine.shows, clock
    line.last, line.last_name, line.last_shown = machine, machine.name, (machine.shows, clock)
    history = "contraindicated" if line.grave else "warning" if line.suspected else "affirming"
    policy = "affirming" if machine.secure else severity
    status = max(history, policy, key=TIERS.index)
    line.told.append(Told(status, now))
    return status


def resolved(line: Line) -> None:
    """An operator keeps who spoke last: its state is where the line goes on, every other UUID is a copy's."""
    assert line.last is not None
    line.grave = line.suspected = False
    line.refused = (line.refused | line.uuids) - {line.last.uuid}
    line.tip, line.clock = line.last_shown
    line.seen = [(*line.last_name, False)]


def begun_anew(line: Line) -> None:
    """Somebody with authority let it in: whatever is shown next is where it goes on."""
    line.grave = line.suspected = False
    line.tip = line.clock = None
