"""Every log of the corpus and of the captures, damaged: a typed error with its offset or a log, in bounded memory."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable

import pytest

from tests.event_logs import boots, corpus_logs
from tests.logs import EV_IPL, Written, agile_log, sha1_log
from verifier.appraisal.boot_facts import bind_log
from verifier.errors import EvidenceError, MalformedInputError
from verifier.quirks import Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import MAX_EVENTS, ParsedEventLog, parse_event_log, replay

LARGEST = 70_000
"""Of a log before it is damaged; a CCEL area is mostly filler."""
LOGS = {boot.name: boot.log for boot in boots()[:4]} | {log.file: log.data[:LARGEST] for log in corpus_logs()}
FIXED = 64 * 1024
"""Bytes that reading takes however small the log is: tables that are built once, the error with its trace."""
TIMES = 10
TEXTS = [quirk.entry for quirk in Quirk]  # read once, before anything is measured
WORDS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0, 0x00010000, 0x000B0004)


def byte(log: bytearray, dice: random.Random) -> None:
    log[dice.randrange(len(log))] = dice.randrange(256)


def word(log: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(log))
    log[place : place + 4] = struct.pack("<I", dice.choice(WORDS))


def cut(log: bytearray, dice: random.Random) -> None:
    del log[dice.randrange(len(log)) :]


def drop(log: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(log))
    del log[place : place + dice.randrange(1, 64)]


def grow(log: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(log))
    log[place:place] = dice.randbytes(dice.randrange(1, 64))


def repeat(log: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(log))
    log[place:place] = log[place : place + dice.randrange(1, 4096)]


def swap(log: bytearray, dice: random.Random) -> None:
    middle = dice.randrange(len(log))
    log[:] = log[middle:] + log[:middle]


DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (byte, word, cut, drop, grow, repeat, swap)


def peak(work: Callable[[], object]) -> tuple[object, int]:
    """What `work` gives, its refusal included, and the most memory it held."""
    tracemalloc.start()
    try:
        result: object = work()
    except EvidenceError as refusal:
        result = refusal
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return result, most


def whole_way(data: bytes, true: ParsedEventLog | None) -> ParsedEventLog:
    """Parse, replay, compare, look for quirks and bind, as the verifier does for a quote of the true boot."""
    log = parse_event_log(data, allow_cut=True)
    if true is not None:
        values = {bank: replay(true, bank) for bank in true.algorithms if bank.new is not None}
        bind_log(data, log, values, None)
    return log


@pytest.mark.parametrize("name", LOGS or [None])
def test_a_damaged_log_is_refused_at_a_byte_or_read_within_ten_times_its_size(name: str | None) -> None:
    if name is None:
        pytest.skip("SKIPPED FOR WANT OF DATA: there is no log to damage")
    original = LOGS[name]
    if not original:
        return
    try:
        true: ParsedEventLog | None = parse_event_log(original, allow_cut=True)
    except EvidenceError:
        true = None
    whole_way(original, true) if true is not None else None
    dice = random.Random(name)
    for damage in DAMAGE * 2:
        log = bytearray(original)
        for _ in range(dice.randrange(1, 4)):
            if log:
                damage(log, dice)
        data = bytes(log)
        result, most = peak(lambda data=data: whole_way(data, true))
        assert most <= TIMES * len(data) + FIXED, damage.__name__
        if isinstance(result, MalformedInputError):
            assert result.offset is not None
            assert 0 <= result.offset <= max(len(data), 1), damage.__name__
            assert result.structure
        elif isinstance(result, ParsedEventLog):
            assert all(event.offset < len(data) for event in result.events)
            assert result.cut_at is None or result.cut_at == result.size < len(data)


@pytest.mark.parametrize(
    "write", [sha1_log, lambda events: agile_log(events, (HashAlg.SHA256,))], ids=["sha1", "agile"]
)
@pytest.mark.parametrize("count", [1000, MAX_EVENTS - 2, MAX_EVENTS + 2])
def test_events_of_no_byte_are_read_or_refused_within_ten_times_the_log(
    write: Callable[..., bytes], count: int
) -> None:
    """The most objects that a log of a given size can become."""
    data = write([Written(8, EV_IPL, b"", str(number).encode()) for number in range(count)])
    for tail in (b"", b"\xee" * 40, data[:20]):
        result, most = peak(lambda tail=tail: parse_event_log(data + tail, allow_cut=True))
        assert most <= TIMES * len(data + tail) + FIXED
        if count > MAX_EVENTS:
            assert isinstance(result, MalformedInputError)
            assert "more than" in result.detail
