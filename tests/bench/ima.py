"""The IMA list: 100,000 entries at once, a tail of ten, the longest pause in between, and the memory of it."""

from __future__ import annotations

import hashlib
import struct
import time
import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

from tests.bench.measure import Result, within
from tests.runtime_reference import Known
from tests.runtime_sets import a_set, entry
from verifier.appraisal.ima.judge import Continuity, ImaOutcome, judge, judge_in_steps
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL
from verifier.policy.runtime.compiled import CompiledReference
from verifier.policy.runtime.section import NamedSet, RuntimeSection
from verifier.policy.runtime.writing import digest_of
from verifier.tcg.algorithms import HashAlg

ENTRIES: Final = 100_000
TAIL: Final = 10
MEMORY_BUDGET: Final = 3.0
STALL_BUDGET_US: Final = 10_000.0
_SHA256: Final = hashlib.sha256
_ROUNDS: Final = 5


def _template(path: bytes) -> bytes:
    """Template data of ima-ng, whose entries have 150 bytes; the content of each file is its path."""
    digest = b"sha256:\0" + _SHA256(path).digest()
    return struct.pack("<I", len(digest)) + digest + struct.pack("<I", len(path)) + path


def _entry(data: bytes, name: bytes = b"ima-ng") -> bytes:
    head = struct.pack("<I20sI", 10, hashlib.sha1(data, usedforsecurity=False).digest(), len(name))
    return head + name + struct.pack("<I", len(data)) + data


class _Guest(NamedTuple):
    """A machine that measured 100,000 known files."""

    templates: list[bytes]
    list: bytes
    tail_at: int
    reference: CompiledReference


@cache
def _guest() -> _Guest:
    """Made once, and only if these benches run."""
    names = (f"/usr/lib/x86_64-linux-gnu/package-{number:06d}/libexample.so.1" for number in range(ENTRIES))
    paths = [name.encode() + b"\0" for name in names]
    templates = list(map(_template, paths))
    entries = list(map(_entry, templates))
    whole = a_set(*(entry(path[:-1], path) for path in paths))
    section = RuntimeSection(sets=(NamedSet(digest_of(whole)),))
    reference = CompiledReference(section, {digest_of(whole): whole}, HashAlg.SHA256)
    return _Guest(templates, b"".join(entries), sum(map(len, entries[:-TAIL])), reference)


def _extended(templates: list[bytes], value: bytes = bytes(32)) -> bytes:
    """What no replay can do without: two hashes an entry."""
    for data in templates:
        value = _SHA256(value + _SHA256(data).digest()).digest()
    return value


def _good(outcome: ImaOutcome, count: int) -> ImaOutcome:
    if outcome.claims is None or outcome.claims.known != count:
        raise AssertionError("the bench's own list must be proven and known")
    return outcome


def lists() -> list[Result]:
    templates, content, tail_at, reference = _guest()
    before = _extended(templates[:-TAIL])
    quoted = {HashAlg.SHA256: {10: _extended(templates[-TAIL:], before)}}
    whole = ImaSegment(content)
    start = judge(INITIAL, ImaSegment(content[:tail_at]), {HashAlg.SHA256: {10: before}}, reference).state
    tail = ImaSegment(content[tail_at:], tail_at)
    if _good(judge(start, tail, quoted, reference), ENTRIES).continuity is not Continuity.CONTINUED:
        raise AssertionError("the tail must go on from the state")
    return [
        within(
            f"IMA, {ENTRIES:,} entries, {ENTRIES:,} known digests",
            lambda: _good(judge(INITIAL, whole, quoted, reference), ENTRIES),
            budget_us=200_000,
            bare=lambda: _extended(templates),
            bare_name="plain hashlib loop",
        ),
        within(
            f"IMA, a tail of {TAIL} entries from stored state",
            lambda: judge(start, tail, quoted, reference),
            budget_us=25,
            bare=lambda: _extended(templates[-TAIL:], before),
            bare_name="plain hashlib loop",
        ),
        _unsigned(),
        _stall(quoted),
        _memory(quoted),
    ]


def _unsigned() -> Result:
    """Template ima-sig, the default of many distributions, with files that carry no signature."""
    guest = _guest()
    templates = [data + bytes(4) for data in guest.templates]
    whole = ImaSegment(b"".join(_entry(data, b"ima-sig") for data in templates))
    quoted = {HashAlg.SHA256: {10: _extended(templates)}}
    return within(
        f"IMA, {ENTRIES:,} entries of ima-sig without signatures",
        lambda: _good(judge(INITIAL, whole, quoted, guest.reference), ENTRIES),
        budget_us=300_000,
        bare=lambda: _extended(templates),
        bare_name="plain hashlib loop",
    )


def _stall(quoted: dict[HashAlg, dict[int, bytes]]) -> Result:
    """The longest step of the same list when it pauses as it does on an event loop."""

    guest = _guest()

    def longest() -> float:
        steps, worst = judge_in_steps(INITIAL, ImaSegment(guest.list), quoted, guest.reference), 0
        while True:
            started = time.process_time_ns()
            ended = next(steps, True)
            worst = max(worst, time.process_time_ns() - started)
            if ended:
                return worst / 1000

    value = min(longest() for _ in range(_ROUNDS))
    return Result(
        f"IMA, longest step between two pauses of {ENTRIES:,} entries",
        value,
        "us",
        "",
        None,
        f"<= {STALL_BUDGET_US:g} us",
        value <= STALL_BUDGET_US,
    )


def _memory(quoted: dict[HashAlg, dict[int, bytes]]) -> Result:
    """Peak of what judging allocates, every entry looked at one by one, held against the list's own size."""
    guest, unknown = _guest(), Known(fast=False)
    tracemalloc.start()
    judge(INITIAL, ImaSegment(guest.list), quoted, unknown)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    ratio = 1 + peak / len(guest.list)
    return Result(
        f"IMA, memory for {ENTRIES:,} entries that all have to be looked at",
        (len(guest.list) + peak) / 1e6,
        "MB",
        f"the list, {len(guest.list) / 1e6:.1f} MB",
        ratio,
        f"<= {MEMORY_BUDGET:g}x",
        ratio <= MEMORY_BUDGET,
    )


BENCHES: Final[dict[str, Callable[[], list[Result]]]] = {"ima": lists}
