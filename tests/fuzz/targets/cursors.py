"""What pages of listings start from, and texts of a query: cursors, selectors, labels, durations, methods."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tests.fuzz.corpora import choices
from verifier.durations import Duration
from verifier.errors import VtpmAttestError
from verifier.policy.assignment import check_labels, parse_selector
from verifier.service import inventory
from verifier.service.methods import parse_methods
from verifier.service.tokens import api_secret_hash, join_secret_hash
from verifier.service.trust import parse_purposes
from verifier.store.cursors import decode_cursor, encode_cursor

RAISES = (VtpmAttestError,)
RUNS = 3000


def cursor(text: str) -> None:
    after = decode_cursor(text, "default", ("attesters", None))
    again = encode_cursor(after, "default", ("attesters", None))  # base64 has spare bits: not the same text
    assert decode_cursor(again, "default", ("attesters", None)) == after


def selector(text: str) -> None:
    found = parse_selector(text.split(","))
    assert check_labels(found) == found


def methods(text: str) -> None:
    with contextlib.suppress(ValueError):  # likewise
        parse_methods(text.split(","))


def duration(text: str) -> None:
    with contextlib.suppress(
        ValueError
    ):  # as it says; whoever reads settings or policies makes their error of it
        assert Duration.parse(text).total_seconds() >= 0


READERS: tuple[Callable[[str], object], ...] = (
    cursor,
    inventory._position,
    selector,
    duration,
    methods,
    lambda text: parse_purposes(text.split(",")),
    join_secret_hash,
    api_secret_hash,
)


def seeds() -> Iterator[bytes]:
    yield from choices(
        {
            0: [encode_cursor("att-1", "default", ("attesters", None)).encode()],
            1: [b"c3RhdGljL3Zt"],
            2: [b"env=prod,tier=db", b"a=", b"=a"],
            3: [b"10m", b"7d", b"1.5h"],
            4: [b"certificate|inventory,approve", b"certificate"],
            5: [b"ek,ak"],
            6: [b"vtj1." + b"A" * 43, b"vtj1." + b"A" * 43 + b"." + b"B" * 43],
            7: [b"vta1." + b"A" * 43],
        }
    )


def target(data: bytes) -> None:
    READERS[data[0] % len(READERS) if data else 0](data[1:].decode("utf-8", "surrogateescape"))
