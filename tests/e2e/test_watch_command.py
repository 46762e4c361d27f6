"""`attestctl watch` as people run it: on a terminal, through a pipe, with and without the stream of events."""

from __future__ import annotations

import asyncio
import json
import signal
from functools import partial

import pytest

from tests.e2e.test_http_events import stream, take
from tests.e2e.test_http_webhooks import delivering, revoke
from tests.harness import boot_log, running, settings_for
from tests.terminal import ESCAPE, Terminal
from verifier.ports import Scope

RED = f"{ESCAPE}1;31m"


@pytest.fixture
async def live(verifier):
    async with delivering(verifier):
        yield verifier


@pytest.fixture
async def alone(tmp_path, clock):
    """A verifier whose only place for a stream is taken."""
    async with (
        running(settings_for(tmp_path, EVENTS_MAX_STREAMS="1"), clock) as harness,
        delivering(harness),
        stream(harness) as taken,
    ):
        await take(taken, 1)
        yield harness


class Lines:
    """A `watch` that writes into pipes."""

    def __init__(self, process):
        self.process = process

    @classmethod
    async def of(cls, verifier, *arguments):
        self = cls(await verifier.attestctl_running("watch", *arguments))
        self.first = await self.remark()
        return self

    async def next(self):
        return (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode()

    async def remark(self):
        return (await asyncio.wait_for(self.process.stderr.readline(), 60)).decode()

    async def end(self):
        self.process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode == 130
        assert b"Traceback" not in err
        return out.decode(), err.decode()


async def test_on_a_terminal_a_table_that_changes_and_ctrl_c_leaves_it_in_order(live):
    guest, other = await live.guest(1), await live.guest(2)
    await guest.attest()
    screen = Terminal()
    await screen.run(partial(live.attestctl_running, "watch"))
    await screen.shows("2 machines: 1 enrolled, 1 affirming", "live", "guest-1", other.attester_id)
    guest.reboot(boot_log(secure=False))
    await guest.attest()
    await screen.shows("1 contraindicated, 1 enrolled", "secure-boot-off", f"{RED}contraindicated")
    assert await screen.interrupt() == 130
    assert screen.text.rstrip().endswith(f"{ESCAPE}?25h"), "the cursor is there again"
    assert "Traceback" not in screen.text


async def test_no_color_is_respected(live):
    await (await live.guest()).attest()
    screen = Terminal()
    surroundings = await live.surroundings(Scope.OPERATOR) | {"NO_COLOR": "1"}
    await screen.run(partial(live.attestctl_running, "watch", env=surroundings))
    await screen.shows("affirming", "live")
    await screen.interrupt()
    assert f"{ESCAPE}1;32m" not in screen.text
    assert f"{ESCAPE}32m" not in screen.text


async def test_as_many_machines_as_fit_the_worst_of_them(live):
    guests = [await live.guest(seed) for seed in range(1, 9)]
    await revoke(live, guests[0])
    bad = guests[-1]
    bad.reboot(boot_log(secure=False))
    await bad.attest()
    screen = Terminal(rows=15)
    await screen.run(partial(live.attestctl_running, "watch"))
    await screen.shows("and 4 more, none of them worse", bad.attester_id)
    await screen.interrupt()
    assert guests[0].attester_id not in screen.text


async def test_through_a_pipe_a_line_per_change_of_what_was_asked_for(live):
    guest, other = await live.guest(1), await live.guest(2)
    await guest.attest()
    await live.attestctl("label", guest.attester_id, "role=web")
    lines = await Lines.of(live, "--label", "role=web")
    assert "watching 1 machine: 1 affirming" in lines.first
    assert "live" in await lines.remark()
    await revoke(live, other)
    guest.reboot(boot_log(secure=False))
    await guest.attest()
    line = await lines.next()
    assert f"guest-1 ({guest.attester_id})  affirming -> contraindicated  secure-boot-off" in line
    out, err = await lines.end()
    assert (out, err) == ("", "")
    assert ESCAPE not in line


async def test_json_lines_and_a_state_that_is_left(live):
    guest, other = await live.guest(1), await live.guest(2)
    for one in (guest, other):
        await one.attest()
    lines = await Lines.of(live, "--status", "contraindicated", "--jsonl")
    await lines.remark()
    await revoke(live, other)
    guest.reboot(boot_log(secure=False))
    await guest.attest()
    change = json.loads(await lines.next())
    assert (change["id"], change["before"], change["after"]) == (
        guest.attester_id,
        "affirming",
        "contraindicated",
    )
    guest.reboot(boot_log())
    await guest.attest()
    change = json.loads(await lines.next())
    assert (change["before"], change["after"]) == ("contraindicated", "affirming")
    await lines.end()


async def test_without_a_stream_it_says_so_and_asks(alone, clock):
    guest, other = await alone.guest(1), await alone.guest(2)
    await guest.attest()
    lines = await Lines.of(alone, "--interval", "1")
    assert "no stream of events (429 rate-limited" in await lines.remark()
    await revoke(alone, other)
    assert "enrolled -> revoked" in await lines.next()
    clock.advance(minutes=11)
    assert "guest-1" in (line := await lines.next())
    assert "affirming -> stale" in line
    (token,) = [
        each
        for each in await alone.service.services.tokens.list("default")
        if each.scopes == frozenset({Scope.OPERATOR})
    ]
    await alone.service.services.tokens.revoke("default", token.id, "test")
    _, err = await asyncio.wait_for(lines.process.communicate(), 60)
    assert lines.process.returncode == 77
    assert b"401" in err


async def test_a_verifier_that_restarts_is_waited_for(tmp_path, clock):
    settings = settings_for(tmp_path)
    async with running(settings, clock) as first, delivering(first):
        guest = await first.guest(1)
        lines = await Lines.of(first)
        assert "live" in await lines.remark()
        port = int(first.secure_url.rpartition(":")[2])
    remark = await lines.remark()
    assert "reach" in remark or "ended the stream" in remark
    async with running(settings, clock, secure_port=port) as second, delivering(second):
        await revoke(second, guest)
        assert "enrolled -> revoked" in await lines.next()
        while "live" not in remark:
            remark = await lines.remark()
        await lines.end()


async def test_json_is_one_document_and_the_end(live):
    guest = await live.guest(1)
    await live.guest(2)
    await guest.attest()
    done = await live.attestctl("watch", "--json", "--status", "affirming")
    assert (done.code, done.err) == (0, "")
    assert done.json["counts"] == {"enrolled": 1, "affirming": 1}
    assert [machine["id"] for machine in done.json["machines"]] == [guest.attester_id]
    for wrong in (("--json", "--jsonl"), ("--interval", "0")):
        refused = await live.attestctl("watch", *wrong)
        assert (refused.code, refused.out) == (64, "")
