"""Boot logs (TCG): read whole or cut, replayed, explained."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.corpora import captured, corpus
from tests.fuzz.targets import Bound
from tests.harness import boot_log
from tests.logs import Written, sha1_log
from verifier.appraisal.eventlog_report import explain_log
from verifier.errors import MalformedInputError, UnsupportedError
from verifier.tcg.eventlog import parse_event_log, replay

RAISES = (MalformedInputError, UnsupportedError)
RUNS = 60
MEMORY = Bound(200, 2 << 20)
CALLS = Bound(200, 100_000)


def seeds() -> Iterator[bytes]:
    yield boot_log()
    yield sha1_log([Written(0, 8, b"1\0"), Written(4, 4, b"\0\0\0\0")])
    yield from list(captured("binary_bios_measurements"))[:4]
    kinds = ("eventlog-agile", "eventlog-sha1", "eventlog-ccel", "eventlog-malformed", "eventlog-fragment")
    yield from (data for kind in kinds for data in list(corpus(kind, longest=40_000))[:6])


def target(data: bytes) -> None:
    cut = parse_event_log(data, allow_cut=True)
    assert cut.cut_at is None or 0 < cut.cut_at <= len(data)
    assert all(event.offset < len(data) for event in cut.events)
    document = explain_log(data)
    assert len(document["events"]) == len(cut.events)  # type: ignore[arg-type] - a document for JSON
    for bank in cut.algorithms:
        replay(cut, bank)
    assert parse_event_log(data) == cut
