"""What Windows measures (SIPA records of a WBCL), and the name of a code-integrity policy."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.corpora import choices
from tests.fuzz.targets import Bound
from tests.fuzz.targets.event_data import seeds as events
from verifier.errors import MalformedInputError
from verifier.tcg.event_types import EventType
from verifier.tcg.windows import Record, Sipa, parse_si_policy, parse_sipa

RAISES = (MalformedInputError,)
RUNS = 1500
MEMORY = Bound(200, 1 << 20)


def seeds() -> Iterator[bytes]:
    tagged = [data[4:] for data in events() if int.from_bytes(data[:4], "little") == EventType.EV_EVENT_TAG]
    deep = b""
    for _ in range(10):
        deep = (0x40010001).to_bytes(4, "little") + len(deep).to_bytes(4, "little") + deep
    empty = (0x40010001).to_bytes(4, "little") + bytes(4)
    policy = (0x5000F).to_bytes(4, "little") + (26).to_bytes(4, "little")
    policy += bytes(8) + b"\x0a\0" + b"\x0b\0" + b"\x20\0\0\0" + "names".encode("utf-16-le")
    yield from choices({0: [*tagged, deep, empty * 400, policy], 1: [policy[8:]]})


def target(data: bytes) -> None:
    if data[:1] == b"\x01":
        parse_si_policy(data[1:])
        return
    for record in parse_sipa(data[1:]):
        look(record)


def look(record: Record) -> None:
    assert record.name
    assert isinstance(record.text, str)
    assert record.number >= 0
    if record.kind == Sipa.SI_POLICY:
        try:
            parse_si_policy(record.content)
        except MalformedInputError:
            return
    for part in record.parts:
        look(part)
