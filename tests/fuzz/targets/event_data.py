"""What single events carry: shown whatever it is, and every part that is shown as proven is in it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.fuzz.corpora import captured, corpus
from tests.fuzz.targets import Bound
from verifier.appraisal.event_data import describe
from verifier.errors import EvidenceError
from verifier.tcg.eventlog import parse_event_log
from verifier.tcg.preimage import parts, whole

RAISES = ()
RUNS = 1500
MEMORY = Bound(400, 1 << 20)


def seeds() -> Iterator[bytes]:
    found: dict[int, list[bytes]] = {}
    logs = [
        *captured("binary_bios_measurements"),
        *list(corpus("eventlog-agile", "eventlog-sha1", "eventlog-ccel"))[:30],
    ]
    for log in logs:
        try:
            events = parse_event_log(log, allow_cut=True).events
        except EvidenceError:
            continue
        for event in events:
            shown = found.setdefault(event.event_type, [])
            if len(shown) < 4 and len(event.data) < 4096 and event.data not in shown:
                shown.append(event.data)
    for kind, each in sorted(found.items()):
        yield from (struct.pack("<I", kind) + data for data in each)


def target(data: bytes) -> None:
    kind, data = int.from_bytes(data[:4], "little"), data[4:]
    assert isinstance(describe(kind, data), dict)
    rule = whole(kind)
    if rule is not None:
        rule(data)
    assert all(covered in data + b"\0" for covered, _ in parts(kind, data))
