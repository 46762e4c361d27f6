"""What `watch` takes for a change, and what the client of the stream takes for a message."""

from __future__ import annotations

from verifier.cli.event_stream import Message, messages
from verifier.cli.watch_fleet import Change, Fleet, Machine


def item(number, status="affirming", lifecycle="enrolled", sequence=1, **more):
    return {"id": number, "lifecycle": lifecycle, "status": status, "sequence": sequence, **more}


def told(changes: list[Change]):
    return [(change.machine.id, change.before, change.after) for change in changes]


def test_the_state_is_what_the_verifier_counts_it_as():
    assert Machine.of(item("a")).state == "affirming"
    assert Machine.of(item("a", "none", sequence=None)).state == "enrolled"
    assert Machine.of(item("a", "none")).state == "none"
    assert Machine.of(item("a", "none", "stale")).state == "stale"
    assert Machine.of(item("a", "none", "revoked", None)).state == "revoked"


def test_changes_are_of_state_alone_and_told_once():
    fleet = Fleet()
    assert told(fleet.replace([item("a"), item("b", "warning")])) == [
        ("a", None, "affirming"),
        ("b", None, "warning"),
    ]
    assert fleet.replace([item("a", judged_at="later"), item("b", "warning", reasons=["x"])]) == []
    assert told(fleet.put("a", item("a", "contraindicated"))) == [("a", "affirming", "contraindicated")]
    assert fleet.put("a", item("a", "contraindicated")) == []
    assert told(fleet.put("b", None)) == [("b", "warning", None)]
    assert fleet.put("b", None) == []
    assert told(fleet.replace([])) == [("a", "contraindicated", None)]


def test_the_worst_come_first_and_a_state_nobody_knows_before_them():
    fleet = Fleet()
    fleet.replace(
        [item("a"), item("b", "none", "retired"), item("c", "contraindicated"), item("d", "x", "unheard-of")]
    )
    assert [machine.id for machine in fleet.shown(None)] == ["d", "c", "a", "b"]
    assert [machine.id for machine in fleet.shown("affirming")] == ["a"]
    assert list(fleet.counts()) == ["unheard-of", "contraindicated", "affirming", "retired"]


def test_messages_of_a_stream():
    lines = [
        b"id: 4\r\n", b"event: ready\r\n", b"data: {}\r\n", b"retry: 2000\r\n", b"\r\n",
        b": ping\r\n", b"\r\n",
        b"event:policy.added\n", b"id:5\n", b'data:{"a": 1}\n', b"\n",
        b"id: 6\r\n", b"event: attester.revoked\r\n",
    ]  # fmt: skip
    found = list(messages(lines))
    assert found == [Message("ready", "4", {}), Message("policy.added", "5", {"a": 1})]
    assert [message.is_event for message in found] == [False, True]
