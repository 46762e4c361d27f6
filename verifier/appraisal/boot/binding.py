"""Bind events to their digests: what may be believed of each one (docs/binding.md)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from verifier.claims import Binding, EventFact
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType, type_name
from verifier.tcg.eventlog import ParsedEventLog
from verifier.tcg.preimage import Proven, parts, whole

STRONG_BANKS: Final = frozenset(alg for alg in HashAlg if alg is not HashAlg.SHA1)
"""SHA-1 alone binds nothing: whoever writes an event can choose both preimages of a collision."""
SEPARATED_PCRS: Final = range(8)
IMAGE_PCRS: Final = frozenset({2, 4})
"""Images are measured here by a digest whose preimage, the file, an attacker has: he could make an image `bound`
by putting the file in the log. So only text that people read is bound in these PCRs."""
SEPARATORS: Final = {bytes(4): False, b"\xff" * 4: False, b"\x01\0\0\0": True}
"""Values whose digest separates firmware from what it loads, and whether they report an error (TCG PFP, section 10.4.1, EV_SEPARATOR)."""

_NO_ACTION: Final = int(EventType.EV_NO_ACTION)
_SEPARATOR: Final = int(EventType.EV_SEPARATOR)
_SEPARATOR_DIGESTS: Final = {
    alg: {alg.digest(value): error for value, error in SEPARATORS.items()}
    for alg in HashAlg
    if alg.new is not None
}
_new_fact: Final = tuple.__new__  # the class's own constructor is a Python call
_NO_DIGESTS: Final[dict[HashAlg, bytes]] = {}


class BoundLog:
    """Every event of a log with what is proven of it.

    Attributes:
        log: the events as they stand in the log; positions are those of `facts`.
        facts: one per event; an event of a PCR that the log does not explain has no digests.
        believed: PCRs whose events, and whose absence of events, are proven.
        positions: per PCR, where its proven events stand; no entry for a PCR without any.
        separated: PCRs whose separator is proven.
        failed: those of them whose separator says that firmware met an error.
    """

    __slots__ = ("_strong", "believed", "facts", "failed", "log", "positions", "separated")

    def __init__(
        self, log: ParsedEventLog, believed: Mapping[int, tuple[HashAlg, ...]], strong: frozenset[HashAlg]
    ) -> None:
        self.log = log
        self.believed = frozenset(believed)
        self._strong = strong
        self.facts: list[EventFact] = []
        self.positions: dict[int, list[int]] = {}
        self.separated: set[int] = set()
        self.failed: set[int] = set()

    def of(self, pcr: int) -> list[EventFact]:
        """The proven events of one PCR, in the order that its value proves."""
        return [self.facts[position] for position in self.positions.get(pcr, ())]

    def expected(self, data: bytes, banks: Iterable[HashAlg]) -> dict[HashAlg, bytes] | None:
        """The digests `data` would have in `banks`; None where none of them is strong, which proves nothing."""
        digests = {bank: bank.digest(data) for bank in banks}
        return None if self._strong.isdisjoint(digests) else digests

    def know(self, position: int, text: str) -> None:
        """Another rule found the preimage of this event's digest."""
        self.facts[position] = self.facts[position]._replace(binding=Binding.KNOWN, text=text)


def bind_events(
    log: ParsedEventLog,
    believed: Mapping[int, tuple[HashAlg, ...]],
    *,
    strong: frozenset[HashAlg] = STRONG_BANKS,
    dropped: Collection[int] = (),
) -> BoundLog:
    """Mark every event.

    Bound: the digest of *every* bank that is believed for its PCR, one of them strong, was recomputed from the
    data. The separator of a PCR is known by its digest, not by its type, so that no relabelling can move an
    event from one side of it to the other; an unproven label of that type separates too, which only takes away.

    Args:
        log: the log to bind.
        believed: per PCR the banks in which the log explains the quoted value.
        strong: banks of which one must take part; only a display that judges nothing may widen it.
        dropped: positions of events that were not extended although their PCR is believed: they are labels.
    """
    bound = BoundLog(log, believed, strong)
    facts, positions = bound.facts, bound.positions
    after: set[int] = set()
    column = {bank: number for number, bank in enumerate(log.algorithms)}
    provable = {pcr for pcr, banks in believed.items() if not strong.isdisjoint(banks)}
    for position, event in enumerate(log.events):
        pcr, event_type, values, data, _ = event
        banks = believed.get(pcr)
        name = text = None
        digests, binding = _NO_DIGESTS, Binding.UNBOUND
        if event_type == _NO_ACTION:
            binding = Binding.UNMEASURED
        elif banks and position not in dropped:
            digests = {bank: values[column[bank]] for bank in banks}
            proven = _prove(event_type, data, digests) if pcr in provable else None
            if proven is not None and (pcr not in IMAGE_PCRS or _printable(proven[1])):
                binding = Binding.BOUND
                name, text = proven
            positions.setdefault(pcr, []).append(position)
        named = type_name(event_type)
        fact = (position, pcr, event_type, named, digests, binding, name, text, pcr in after)
        facts.append(_new_fact(EventFact, fact))
        if digests and pcr in SEPARATED_PCRS:
            error = _separates(digests)
            if error is not None:
                bound.separated.add(pcr)
                if error:
                    bound.failed.add(pcr)
            if error is not None or event_type == _SEPARATOR:
                after.add(pcr)
    return bound


def _prove(event_type: int, data: bytes, digests: Mapping[HashAlg, bytes]) -> Proven | None:
    """What the digests prove of the data, or None where no rule of this type leads to all of them."""
    describe = whole(event_type)
    if describe is not None and covers(data, digests):
        return describe(data)
    for covered, proven in parts(event_type, data):
        if covers(covered, digests):
            return proven
    return None


def covers(data: bytes, digests: Mapping[HashAlg, bytes]) -> bool:
    """Whether `data` hashes to every one of `digests`."""
    for bank, digest in digests.items():
        if bank.new is None or bank.new(data).digest() != digest:
            return False
    return True


def _printable(text: str | None) -> bool:
    return text is not None and text.isprintable()


def _separates(digests: Mapping[HashAlg, bytes]) -> bool | None:
    """Whether this is a separator by its digest, and then whether that of an error."""
    for bank, digest in digests.items():
        error = _SEPARATOR_DIGESTS[bank].get(digest)
        if error is not None:
            return error
    return None
