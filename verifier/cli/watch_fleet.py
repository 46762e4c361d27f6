"""What `attestctl watch` knows of a fleet: every machine's state, and what changed since it was read last. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

State = Literal["contraindicated", "none", "warning", "stale", "enrolled", "affirming", "revoked", "retired"]
WORST_FIRST: Final[tuple[State, ...]] = (
    "contraindicated", "none", "warning", "stale", "enrolled", "affirming", "revoked", "retired",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """One line of the fleet."""

    id: str
    hostname: str
    state: str
    """As `/v1/status` counts it: a lifecycle other than `enrolled`, else the tier of a verdict that still holds."""
    reasons: tuple[str, ...]
    judged_at: str | None
    valid_until: str | None

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        """From a line of `GET /v1/attesters`."""
        judged = item.get("sequence") is not None
        state = item["lifecycle"] if item["lifecycle"] != "enrolled" or not judged else item["status"]
        return cls(
            id=item["id"],
            hostname=item.get("hostname") or "",
            state=state,
            reasons=tuple(item.get("reasons") or ()),
            judged_at=item.get("judged_at"),
            valid_until=item.get("valid_until"),
        )

    @property
    def order(self) -> tuple[int, str, str]:
        """The worst first."""
        known: tuple[str, ...] = WORST_FIRST
        return (known.index(self.state) if self.state in known else -1, self.hostname, self.id)


@dataclass(frozen=True, slots=True)
class Change:
    """A machine's state before and after; None: it was, or is, not there (or not with that label)."""

    machine: Machine
    before: str | None
    after: str | None

    def concerns(self, state: str | None) -> bool:
        """Whether somebody who asked for machines in this state wants to know."""
        return state is None or state in {self.before, self.after}


class Fleet:
    """The machines as they were read last."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}

    def replace(self, items: Iterable[Mapping[str, Any]]) -> list[Change]:
        """Everything was read anew."""
        read = {item["id"]: Machine.of(item) for item in items}
        gone = [self._change(number, None) for number in self.machines if number not in read]
        changes = [*gone, *(self._change(number, machine) for number, machine in read.items())]
        self.machines = read
        return [change for change in changes if change is not None]

    def put(self, number: str, item: Mapping[str, Any] | None) -> list[Change]:
        """One was read anew; None: it is not there."""
        machine = None if item is None else Machine.of(item)
        change = self._change(number, machine)
        if machine is None:
            self.machines.pop(number, None)
        else:
            self.machines[number] = machine
        return [] if change is None else [change]

    def counts(self) -> dict[str, int]:
        """How many are in each state, the worst first; states nobody is in are left out."""
        states = [machine.state for machine in sorted(self.machines.values(), key=lambda each: each.order)]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def shown(self, state: str | None) -> list[Machine]:
        """Those in a state (None: all), the worst first."""
        wanted = (each for each in self.machines.values() if state in {None, each.state})
        return sorted(wanted, key=lambda each: each.order)

    def _change(self, number: str, now: Machine | None) -> Change | None:
        was = self.machines.get(number)
        machine = now or was
        before = None if was is None else was.state
        after = None if now is None else now.state
        return None if machine is None or before == after else Change(machine, before, after)
