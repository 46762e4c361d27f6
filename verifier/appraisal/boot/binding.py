"""Bind events to their digests: what may be believed of each one (docs/binding.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from verifier.claims import Binding, EventFact
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType, type_name
from verifier.tcg.eventlog import Event, ParsedEventLog
from verifier.tcg.preimage import candidates

STRONG_BANKS: Final = frozenset(alg for alg in HashAlg if alg is not HashAlg.SHA1)
"""SHA-1 alone binds nothing: whoever writes an event can choose both preimages of a collision."""
SEPARATED_PCRS: Final = range(8)
SEPARATORS: Final = (bytes(4), b"\xff" * 4, b"\x01\0\0\0")
"""Values whose digest separates firmware from what it loads; the last reports a firmware error (PFP 3.3.2)."""

_NO_ACTION: Final = int(EventType.EV_NO_ACTION)
_SEPARATOR: Final = int(EventType.EV_SEPARATOR)
_SEPARATOR_DIGESTS: Final = {
    alg: frozenset(alg.digest(value) for value in SEPARATORS) for alg in HashAlg if alg.new is not None
}
_NO_DIGESTS: Final[Mapping[HashAlg, bytes]] = {}


class BoundEvent(NamedTuple):
    """An event with what is proven of it; turned into an `EventFact` when the whole log is known."""

    event: Event
    digests: Mapping[HashAlg, bytes]
    binding: Binding
    name: str | None
    text: str | None
    after_separator: bool

    def fact(self) -> EventFact:
        """The claim a policy sees."""
        event = self.event
        return EventFact(
            event.index,
            event.pcr,
            event.event_type,
            type_name(event.event_type),
            self.digests,
            self.binding,
            self.name,
            self.text,
            self.after_separator,
        )


def bind_events(log: ParsedEventLog, believed: Mapping[int, tuple[HashAlg, ...]]) -> list[BoundEvent]:
    """Mark every event of `log`.

    Bound: the digest of *every* bank that is believed for its PCR, one of them strong, was recomputed from the
    data. The separator of a PCR is known by its digest, not by its type, so that no relabelling can move an
    event from one side of it to the other; an unproven label of that type separates too, which only takes away.

    Args:
        believed: per PCR the banks in which the log explains the quoted value.
    """
    bound: list[BoundEvent] = []
    separated: set[int] = set()
    for event in log.events:
        pcr, event_type = event.pcr, event.event_type
        after = pcr in separated
        if event_type == _NO_ACTION:
            bound.append(BoundEvent(event, _NO_DIGESTS, Binding.UNMEASURED, None, None, after))
            continue
        banks = believed.get(pcr)
        if not banks:
            bound.append(BoundEvent(event, _NO_DIGESTS, Binding.UNBOUND, None, None, after))
            continue
        digests = {bank: event.digests[bank] for bank in banks}
        if pcr in SEPARATED_PCRS and (event_type == _SEPARATOR or _separates(digests)):
            separated.add(pcr)
        bound.append(_bind(event, digests, after))
    return bound


def _bind(event: Event, digests: Mapping[HashAlg, bytes], after: bool) -> BoundEvent:  # noqa: FBT001 - a field
    if not STRONG_BANKS.isdisjoint(digests):
        for candidate in candidates(event.event_type, event.data):
            if covers(candidate.covered, digests):
                return BoundEvent(event, digests, Binding.BOUND, candidate.name, candidate.text, after)
    return BoundEvent(event, digests, Binding.UNBOUND, None, None, after)


def covers(data: bytes, digests: Mapping[HashAlg, bytes]) -> bool:
    """Whether `data` hashes to every one of `digests`."""
    return all(bank.new is not None and bank.new(data).digest() == digest for bank, digest in digests.items())


def knows(digests: Mapping[HashAlg, bytes], values: Iterable[bytes]) -> bytes | None:
    """The first of `values` that `digests` prove, SHA-1 alone proving nothing; or None."""
    if STRONG_BANKS.isdisjoint(digests):
        return None
    return next((value for value in values if covers(value, digests)), None)


def _separates(digests: Mapping[HashAlg, bytes]) -> bool:
    return any(digest in _SEPARATOR_DIGESTS[bank] for bank, digest in digests.items())
