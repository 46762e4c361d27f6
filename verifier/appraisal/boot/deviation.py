"""One PCR of a log that does not replay, and the deviations that would make it (docs/quirks.md).

Tried only after a replay has failed, within a budget of hashes: a log may be as long and as odd as its sender likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, product
from typing import Final

from verifier.quirks import Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType, type_name
from verifier.tcg.eventlog import ParsedEventLog, extend_all, initial_value

BUDGET: Final = 16_384
"""Extends that one log may cost on top of its replay: 5 to 10 ms. Enough for a PCR of 170 events."""
LOCALITIES: Final = (0, 3, 4)
BOOT_MANAGER_PCR: Final = 4
EXIT_PCR: Final = 5
EXIT_STRINGS: Final = (
    b"Exit Boot Services Invocation",
    b"Exit Boot Services Returned with Success",
    b"Exit Boot Services Returned with Failure",
)
"""TCG PFP, section 10.4.4."""
MAX_EXIT_STRINGS: Final = 4
_SEPARATORS: Final = (bytes(4), b"\xff" * 4, b"\x01\0\0\0")
_FIRMWARE: Final = range(8)
_WELL_KNOWN: Final = {
    BOOT_MANAGER_PCR: (
        b"Calling EFI Application from Boot Option",
        b"Returning from EFI Application from Boot Option",
    ),
    EXIT_PCR: EXIT_STRINGS,
}
_NO_ACTION: Final = int(EventType.EV_NO_ACTION)
_ACTION: Final = int(EventType.EV_EFI_ACTION)
_MAX_PAIRS: Final = 8192


@dataclass(frozen=True, slots=True)
class Reaches:
    """Whether a value is the quoted one, or leads to it by what may follow a log anyway; and the price of asking."""

    ask: Callable[[bytes], bool]
    cost: int = 1


class Budget:
    """How many extends are left."""

    def __init__(self, extends: int = BUDGET) -> None:
        self.left = extends

    def spend(self, extends: int) -> bool:
        """Take so many; False, and nothing taken, where there are not enough."""
        if extends > self.left:
            return False
        self.left -= extends
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Insertion:
    """An event that is not in the log, in front of the `place`-th event of the PCR."""

    place: int
    content: bytes | None
    """What was measured; None: the event before it, once more."""
    at_end: bool = False
    """No event of the PCR is behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """What, other than the log says, would lead to the quoted value. `Track.value` computes what it leads to.

    Attributes:
        after_event: position of the last event of the PCR up to which log and value agree; None: of none.
        at_event: position of the first event that is not as it seems; orders divergences.
        text: for people, as the second half of a sentence.
        dropped: positions of events that were not extended.
        suffix: what was extended after all events of the log; None stands for a digest of zeros.
    """

    quirk: Quirk
    after_event: int | None
    at_event: int
    text: str
    locality: int | None = None
    dropped: frozenset[int] = frozenset()
    inserted: Insertion | None = None
    suffix: tuple[bytes | None, ...] = ()

    @property
    def lacks_its_end(self) -> bool:
        """Something known is missing behind all events of the PCR."""
        at_end = self.inserted is not None and self.inserted.at_end
        return at_end or self.quirk is Quirk.EXIT_BOOT_SERVICES_UNLOGGED


class Track:
    """The measured events of one PCR."""

    def __init__(self, log: ParsedEventLog, pcr: int) -> None:
        self.log = log
        self.pcr = pcr
        self.positions = [
            position
            for position, event in enumerate(log.events)
            if event.pcr == pcr and event.event_type != _NO_ACTION
        ]

    def digests(self, bank: HashAlg) -> list[bytes]:
        """In order; those that the log lacks in this bank are empty."""
        column = self.log.algorithms.index(bank)
        return [self.log.events[position].digests[column] for position in self.positions]

    def value(self, bank: HashAlg, deviation: Deviation) -> bytes:
        """What the PCR would hold after a boot that differs from the log in this."""
        locality = self.log.initial_locality if deviation.locality is None else deviation.locality
        sequence: list[bytes] = []
        inserted = deviation.inserted
        digests = self.digests(bank)
        for place in range(len(digests) + 1):
            if inserted is not None and inserted.place == place:
                sequence.append(
                    digests[place - 1] if inserted.content is None else bank.digest(inserted.content)
                )
            if place < len(digests) and self.positions[place] not in deviation.dropped:
                sequence.append(digests[place])
        sequence += [bytes(bank.size) if one is None else bank.digest(one) for one in deviation.suffix]
        return extend_all(initial_value(self.pcr, bank, locality), [d for d in sequence if d], bank)

    def name(self, position: int) -> str:
        """An event for people."""
        return f"event {position} ({type_name(self.log.events[position].event_type)})"


class Search:
    """Deviations that lead to one quoted value in one bank, the plainest first."""

    def __init__(
        self, track: Track, bank: HashAlg, copies: list[frozenset[int]], reaches: Reaches, budget: Budget
    ) -> None:
        self._track = track
        self._bank = bank
        self._copies = copies
        self._reaches = reaches.ask
        self._cost = reaches.cost
        self._budget = budget
        self._digests = track.digests(bank)
        self._last = track.positions[-1]

    def found(self) -> Iterator[Deviation]:
        """Each leads to the value; none is certain to be what happened."""
        if not self._budget.spend(len(self._digests) * (self._cost + 1)) or self._reaches(self._states()[-1]):
            return  # too long; or only digests are missing, of which nothing can be told
        yield from self._without_copies()
        yield from self._prefixes()
        if self._track.pcr == 0:
            yield from self._localities()
        yield from self._suffixes()
        yield from self._without_zeros()
        yield from self._one_less()
        yield from self._one_more()

    def _states(self) -> list[bytes]:
        states = [initial_value(self._track.pcr, self._bank, self._track.log.initial_locality)]
        for digest in self._digests:
            states.append(extend_all(states[-1], [digest] if digest else [], self._bank))
        return states

    def _prefixes(self) -> Iterator[Deviation]:
        positions, states = self._track.positions, self._states()
        for place in range(len(positions) - 1, -1, -1):
            if not self._reaches(states[place]):
                continue
            if place == 0:
                text = f"it has the value of a PCR that nothing extended, and the log has {len(positions)} events of it"
                yield self._new(Quirk.PCR_NEVER_EXTENDED, 0, text, dropped=frozenset(positions))
                return
            dropped = frozenset(positions[place:])
            last, many = self._track.name(positions[place - 1]), len(dropped)
            text = (
                f"up to {last} the log leads to it; what follows in the log ({many}) was not extended into it"
            )
            yield self._new(Quirk.EXTRA_TAIL_EVENTS, place, text, dropped=dropped)
            return

    def _localities(self) -> Iterator[Deviation]:
        log = self._track.log
        said = "says nothing of it" if log.locality is None else f"says locality {log.locality}"
        for locality in LOCALITIES:
            if locality == log.initial_locality or not self._budget.spend(len(self._digests) + self._cost):
                continue
            text = f"it does when PCR 0 starts as TPM2_Startup from locality {locality} leaves it; the log {said}"
            deviation = self._new(Quirk.MISSING_STARTUP_LOCALITY, 0, text, locality=locality)
            if self._reaches(self._track.value(self._bank, deviation)):
                yield deviation

    def _suffixes(self) -> Iterator[Deviation]:
        end, place = self._states()[-1], len(self._track.positions)
        if self._reaches(extend_all(end, [bytes(self._bank.size)], self._bank)):
            text = "it does when a digest of zeros follows, by which unused banks are closed"
            yield self._new(Quirk.BANK_CAPPED, place, text, suffix=(None,))
        if self._track.pcr != EXIT_PCR:
            return
        for many in range(1, MAX_EXIT_STRINGS + 1):
            for strings in product(EXIT_STRINGS, repeat=many):
                words = [self._bank.digest(string) for string in strings]
                if self._budget.spend(many) and self._reaches(extend_all(end, words, self._bank)):
                    told = ", ".join(repr(string.decode()) for string in strings)
                    text = (
                        f"it does when {told} follows, which is measured as the operating system takes over"
                    )
                    yield self._new(Quirk.EXIT_BOOT_SERVICES_UNLOGGED, place, text, suffix=strings)

    def _without_copies(self) -> Iterator[Deviation]:
        for copy in self._copies:
            mine = sorted(copy.intersection(self._track.positions))
            if not mine or not self._budget.spend(len(self._digests)):
                continue
            place = self._track.positions.index(mine[0])
            tail = all(
                event.event_type == _ACTION and event.pcr == EXIT_PCR
                for event in self._track.log.events[max(copy) + 1 :]
            )
            text = f"events {min(copy)} to {max(copy)} repeat those before them; without the copy it does"
            quirk = Quirk.FINAL_EVENTS_DUPLICATED if tail else Quirk.EVENT_NOT_EXTENDED
            yield from self._checked(self._new(quirk, place, text, dropped=frozenset(mine)))

    def _without_zeros(self) -> Iterator[Deviation]:
        zeros = [place for place, digest in enumerate(self._digests) if digest and not any(digest)]
        if zeros and self._budget.spend(len(self._digests)):
            dropped = frozenset(self._track.positions[place] for place in zeros)
            text = f"{len(zeros)} events have a digest of zeros, from {self._track.name(min(dropped))} on; without them it does"
            yield from self._checked(self._new(Quirk.EVENT_NOT_EXTENDED, zeros[0], text, dropped=dropped))

    def _one_less(self) -> Iterator[Deviation]:
        states = self._states()
        for place in range(len(self._digests) - 1, -1, -1):  # from the end, where a try is cheap
            if not self._budget.spend(len(self._digests) - place + self._cost):
                return
            if self._reaches(extend_all(states[place], _there(self._digests[place + 1 :]), self._bank)):
                position = self._track.positions[place]
                text = f"without {self._track.name(position)} it does: that event was not extended"
                yield self._new(Quirk.EVENT_NOT_EXTENDED, place, text, dropped=frozenset({position}))

    def _one_more(self) -> Iterator[Deviation]:
        pcr, states = self._track.pcr, self._states()
        contents = (*(_SEPARATORS if pcr in _FIRMWARE else ()), *_WELL_KNOWN.get(pcr, ()), None)
        for content, place in product(contents, range(len(states) - 1, -1, -1)):
            rest = self._digests[place:]
            if (content is None and place == 0) or not self._budget.spend(len(rest) + self._cost):
                continue
            extra = self._digests[place - 1] if content is None else self._bank.digest(content)
            if self._reaches(extend_all(states[place], _there([extra, *rest]), self._bank)):
                what = "that event once more" if content is None else _quoted(content)
                where = self._track.name(self._track.positions[place - 1]) if place else "the first event"
                text = f"it does with {what} {'behind' if place else 'before'} {where}, which the log does not have"
                insertion = Insertion(place=place, content=content, at_end=place == len(states) - 1)
                yield self._new(Quirk.EVENT_UNLOGGED, place, text, inserted=insertion)

    def _checked(self, deviation: Deviation) -> Iterator[Deviation]:
        if self._reaches(self._track.value(self._bank, deviation)):
            yield deviation

    def _new(self, quirk: Quirk, place: int, text: str, **changes: object) -> Deviation:
        positions = self._track.positions
        return Deviation(
            quirk=quirk,
            after_event=positions[place - 1] if place else None,
            at_event=positions[place] if place < len(positions) else self._last + 1,
            text=text,
            **changes,  # type: ignore[arg-type] # fields of Deviation, named by the callers above
        )


def _there(digests: list[bytes]) -> list[bytes]:
    return [digest for digest in digests if digest]


def _quoted(content: bytes) -> str:
    return (
        repr(content.decode())
        if content.isascii() and len(content) > len(_SEPARATORS[0])
        else f"a separator ({content.hex()})"
    )


def repeated(log: ParsedEventLog) -> list[frozenset[int]]:
    """Runs of events that stand twice or more in a row: positions of the copies, longest first.

    Two events are the same when all but their offset is. A log with very many alike gets no answer.
    """
    alike: dict[tuple[object, ...], list[int]] = {}
    for position, event in enumerate(log.events):
        alike.setdefault(event[:-1], []).append(position)
    if sum(len(same) ** 2 for same in alike.values() if len(same) > 1) > _MAX_PAIRS:
        return []
    gaps: dict[int, list[int]] = {}
    for same in alike.values():
        for number, first in enumerate(same):
            for second in same[number + 1 :]:
                gaps.setdefault(second - first, []).append(first)
    copies: set[frozenset[int]] = set()
    for gap, starts in gaps.items():
        for _, group in groupby(enumerate(sorted(starts)), lambda pair: pair[1] - pair[0]):
            run = [start for _, start in group]
            whole = len(run) // gap
            if whole:
                copies.add(frozenset(range(run[0] + gap, run[0] + 2 * gap)))
                copies.add(frozenset(range(run[0] + gap, run[0] + (1 + whole) * gap)))
    return sorted(copies, key=len, reverse=True)
