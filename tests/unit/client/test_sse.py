"""Server-sent events, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.client.errors import ReplyError
from verifier.client.sse import MAX_EVENT, Received, SseReader

STREAM = (
    "retry: 2000\r\nevent: ready\r\nid: 7\r\ndata: {}\r\n\r\n: ping\r\n\r\n"
    "event: verdict.changed\nid: 8\ndata: grün\ndata:  zwei\n\nid: 9\n\n"
).encode()
EVENTS = [Received("ready", "{}", "7"), Received("verdict.changed", "grün\n zwei", "8")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_where_it_is_cut_makes_no_difference(cuts):
    reader, found, begin = SseReader(), [], 0
    for end in [*sorted(cuts), len(STREAM)]:
        found += reader.feed(STREAM[begin:end])
        begin = end
    assert found == EVENTS


def test_half_an_event_is_none():
    assert SseReader().feed(STREAM[:-30] + b"event: half\ndata: x\n")[-1].kind != "half"


@pytest.mark.parametrize("line", [b"x", b"data: x\n"])
def test_an_event_has_an_end(line):
    reader = SseReader()
    for _ in range(MAX_EVENT // (1000 * len(line))):
        assert reader.feed(line * 1000) == []
    with pytest.raises(ReplyError):
        reader.feed(line * 300_000)


def test_signs_of_life_are_free():
    reader = SseReader()
    for _ in range(3):
        assert reader.feed(b": ping\n\n" * (MAX_EVENT // 8)) == []


def test_what_is_not_utf_8_is_an_error():
    with pytest.raises(ReplyError):
        SseReader().feed(b"data: \xff\n\n")
