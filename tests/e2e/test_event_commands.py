"""`attestctl events` and `attestctl webhooks` as people run them, against a verifier over HTTPS."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from standardwebhooks import Webhook

from tests.e2e.test_http_webhooks import ALLOWED, delivering, revoke, until
from tests.harness import running, settings_for
from tests.receivers import receiving
from verifier.ports import Scope

HOOK = "https://receiver.example/hook"


@pytest.fixture
async def live(verifier):
    async with delivering(verifier):
        yield verifier


async def listed(verifier, *arguments):
    done = await verifier.attestctl("events", "--json", *arguments)
    assert done.code == 0, done.err
    return done.json


async def published(verifier, count):
    """Wait until so many events have a position."""
    while len((found := await listed(verifier))["events"]) < count:
        await asyncio.sleep(0.1)
    return found


async def test_what_happened_is_listed_filtered_and_gone_on_from(live):
    guest, other = await live.guest(1), await live.guest(2)
    await revoke(live, guest)
    found = await published(live, 4)  # with policy.added
    assert found["gap"] is False
    assert [event["type"] for event in found["events"]] == [
        "vtpm-attest.policy.added",
        "vtpm-attest.attester.enrolled",
        "vtpm-attest.attester.enrolled",
        "vtpm-attest.attester.revoked",
    ]
    position = found["position"]
    assert str(position) == found["events"][-1]["sequence"]
    assert await listed(live, "--since", str(position)) == {"events": [], "position": position, "gap": False}
    mine = await listed(live, "--attester", other.attester_id)
    assert [event["subject"] for event in mine["events"]] == [other.attester_id]
    assert mine["position"] == position, "what a filter leaves out is passed all the same"
    two = await listed(live, "--kind", "attester.revoked", "--kind", "policy.added")
    assert len(two["events"]) == 2
    people = await live.attestctl("events")
    assert people.code == 0
    assert f"attester.revoked  {guest.attester_id}" in people.out
    lines = (await live.attestctl("events", "--jsonl")).out.splitlines()
    assert [json.loads(one) for one in lines] == found["events"]


async def test_followed_events_come_as_they_happen_and_ctrl_c_ends_it(live):
    process = await live.attestctl_running("events", "--follow", "--since", "0", "--jsonl")
    first = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    assert first["type"] == "vtpm-attest.policy.added"
    guest = await live.guest()
    second = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    assert (second["type"], second["subject"]) == ("vtpm-attest.attester.enrolled", guest.attester_id)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130
    assert err == b""


async def test_a_stream_that_breaks_off_is_resumed_and_said_so(tmp_path, clock):
    """The verifier restarts on the same port; what happens meanwhile is not lost."""
    settings = settings_for(tmp_path)
    async with running(settings, clock) as first, delivering(first):
        port = int(first.secure_url.rpartition(":")[2])
        process = await first.attestctl_running("events", "--follow", "--since", "0", "--jsonl")
        await asyncio.wait_for(process.stdout.readline(), 30)
    async with running(settings, clock, secure_port=port) as second, delivering(second):
        guest = await second.guest()
        event = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert (event["type"], event["subject"]) == ("vtpm-attest.attester.enrolled", guest.attester_id)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 30)
    text = err.decode()
    assert "trying again in 1 s" in text
    assert "connected again; nothing was missed" in text
    assert "Traceback" not in text


async def test_a_wrong_call_names_the_right_one(live):
    both = await live.attestctl("events", "--follow", "--json")
    assert (both.code, both.out) == (64, "")
    assert "--jsonl" in both.err
    unknown = await live.attestctl("events", "--kind", "nothing.happened")
    assert unknown.code >= 64
    assert "is none of the kinds" in unknown.err
    beyond = await live.attestctl("events", "--follow", "--since", "99999")
    assert beyond.code >= 64
    assert "beyond the last event" in beyond.err
    none = await live.attestctl("webhooks", "show", "whk-nothing")
    assert none.code >= 64
    assert "404" in none.err


async def test_a_webhook_s_life_by_commands(tmp_path, clock):
    settings = settings_for(tmp_path, **ALLOWED, WEBHOOKS_TIMEOUT="1s", WEBHOOKS_ATTEMPTS="1")
    async with (
        receiving(answer=lambda number: 500 if number == 1 else 204) as receiver,
        running(settings, clock) as verifier,
        delivering(verifier),
    ):
        assert "no webhooks" in (await verifier.attestctl("webhooks")).out
        made = await verifier.attestctl(
            "webhooks", "add", receiver.url, "--kind", "attester.enrolled", "--description", "[SIEM]"
        )
        assert made.code == 0, made.err
        secret = made.out.strip()
        (webhook,) = (await verifier.attestctl("webhooks", "list", "--json")).json["webhooks"]
        assert webhook["id"] in made.err
        assert "[SIEM]" in (await verifier.attestctl("webhooks", "list")).out
        shown = await verifier.attestctl("webhooks", "show", webhook["id"])
        assert "attester.enrolled" in shown.out
        assert secret not in shown.out

        await verifier.guest()
        await receiver.next()
        (dead,) = await until(verifier, webhook["id"], "dead")
        table = await verifier.attestctl("webhooks", "deliveries", webhook["id"], "--status", "dead")
        assert "answered 500" in table.out
        again = await verifier.attestctl(
            "webhooks", "redeliver", webhook["id"], "--delivery", str(dead["id"]), "--json"
        )
        assert again.json == {"count": 1}
        one = await receiver.next()
        Webhook(secret).verify(one.body, one.headers)
        removed = await verifier.attestctl("webhooks", "remove", webhook["id"], "--json")
        assert removed.json == {"id": webhook["id"], "removed": True}
        assert (await verifier.attestctl("webhooks", "--json")).json == {"webhooks": []}


async def test_a_webhook_that_wants_everything_is_shown(live):
    made = await live.attestctl("webhooks", "add", HOOK, "--json")
    assert made.code == 0, made.err
    for command in (["list"], ["show", made.json["webhook"]["id"]]):
        shown = await live.attestctl("webhooks", *command)
        assert shown.code == 0, shown.err
        assert HOOK in shown.out
        assert "all events" in shown.out


async def test_webhooks_need_an_operator_and_the_refusal_says_how(live):
    done = await live.attestctl("webhooks", "add", HOOK, scope=Scope.DASHBOARD)
    assert done.code == 77
    assert "attest-verifier tokens create --scope" in done.err
