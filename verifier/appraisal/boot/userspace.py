"""Read off what systemd measured from userspace: PCR 15 and NvPCRs (docs/binding.md, "After the log has ended").

Whoever runs the machine can hide an event, by editing its string, and add others: at the end of a PCR, never before
what was measured first. Digests that are known, as that of a separator, cannot be hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from verifier.appraisal.boot.binding import STRONG_BANKS, BoundLog
from verifier.claims import Binding, CertifiedIndex, EventFact, NvPcr, UserspaceFacts
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import extend_all
from verifier.tcg.userspace_log import UserspaceEvent, UserspaceLog
from verifier.tcg.userspace_text import (
    FILE_SYSTEM,
    IDENTITY_PCR,
    NVPCR_PCR,
    NVPCR_SEPARATOR,
    NvPcrStart,
    kind_of,
    machine_id,
    nvpcr_start,
    product_id,
)

HARDWARE: Final = "hardware"
_SEPARATOR: Final = NVPCR_SEPARATOR.encode()


@dataclass(frozen=True, slots=True)
class Userspace:
    """What the guest says systemd measured from userspace.

    Attributes:
        log: untrusted, parsed.
        indices: NV indices, as the AK certified them.
    """

    log: UserspaceLog
    indices: tuple[CertifiedIndex, ...] = ()


def read_userspace(bound: BoundLog, userspace: Userspace | None = None) -> UserspaceFacts:
    """Read PCR 15 and the NvPCRs.

    Args:
        bound: the boot log, continued by systemd's.
        userspace: systemd's log with its events of NV indices, and what is certified of these.
    """
    facts = bound.of(IDENTITY_PCR)
    texts = [_text(fact) for fact in facts]
    proven = tuple(text for text in texts if text is not None)
    nvpcrs = {} if userspace is None or not userspace.indices else dict(_nvpcrs(bound, userspace))
    hardware = nvpcrs.get(HARDWARE)
    return UserspaceFacts(
        machine_id=_single(texts, machine_id),
        identity_texts=proven,
        file_systems=tuple(text for text in proven if kind_of(text) == FILE_SYSTEM)
        if IDENTITY_PCR in bound.believed and None not in texts
        else None,
        volume_keys=tuple(fact.digests for fact, text in zip(facts, texts, strict=True) if text is None),
        product_id=None if hardware is None else _single(hardware.texts or (), product_id),
        nvpcrs=nvpcrs,
    )


def _text(fact: EventFact) -> str | None:
    return fact.text if fact.binding is Binding.BOUND else None


def _single(texts: Sequence[str | None], read: Callable[[str], str | None]) -> str | None:
    """What the first text that `read` understands says; None where one before it is hidden, or a later one differs."""
    first: str | None = None
    for text in texts:
        if text is None:
            if first is None:
                return None
            continue
        value = read(text)
        if value is not None and first not in (None, value):
            return None
        first = first or value
    return first


def _nvpcrs(bound: BoundLog, userspace: Userspace) -> Iterator[tuple[str, NvPcr]]:
    starts = _starts(bound)
    for each in userspace.indices:
        start = starts.get(each.handle)
        if start is None or start.bank is not each.bank or start.index_name not in (None, each.name):
            continue
        mine = [event for event in userspace.log.events if event.nv_index == each.handle]
        led, texts = _replay(mine, start, each.value)
        # A start that is a value proves the index only by leading to its content: its Name is anybody's.
        if led or start.index_name is not None:
            yield start.name, NvPcr(each.handle, each.bank, each.value, texts)


def _starts(bound: BoundLog) -> Mapping[int, NvPcrStart]:
    """How each NvPCR began, by index: what PCR 9 has before its first separator, if it says so only once.

    The separator is known by its digest, so that it cannot be hidden, and nothing that runs after it can add a start
    before it.
    """
    found: dict[int, NvPcrStart | None] = {}
    names: dict[str, int] = {}
    for fact in bound.of(NVPCR_PCR):
        if fact.digests == bound.expected(_SEPARATOR, fact.digests):
            return {index: start for index, start in found.items() if start is not None}
        text = _text(fact)
        start = None if text is None else nvpcr_start(text)
        if start is not None:
            known = found.get(start.handle, start)
            doubtful = known != start or names.setdefault(start.name, start.handle) != start.handle
            found[start.handle] = None if doubtful else start
    return {}


def _replay(
    events: Sequence[UserspaceEvent], start: NvPcrStart, content: bytes
) -> tuple[bool, tuple[str, ...] | None]:
    """Whether events from the front of the log lead to the content, and their strings if all are proven."""
    value, bank = start.value, start.bank
    texts: list[str | None] = []
    for event in (*events, None):
        if value == content:
            proven = tuple(text for text in texts if text is not None)
            return True, proven if len(proven) == len(texts) else None
        digest = None if event is None else event.digests.get(bank)
        if event is None or digest is None:
            break
        value = extend_all(value, [digest], bank)
        texts.append(_said(event, bank, digest))
    return False, None


def _said(event: UserspaceEvent, bank: HashAlg, digest: bytes) -> str | None:
    covered = event.text is not None and bank in STRONG_BANKS and bank.digest(event.text.encode()) == digest
    return event.text if covered else None
