"""The stream of events over HTTP: resumed without a gap or a duplicate, filtered, and of one tenant alone."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from tests.e2e.test_http_webhooks import delivering, revoke
from verifier.ports import Scope


@asynccontextmanager
async def stream(verifier, query="", scope=Scope.DASHBOARD, token=None, last=None):
    """An open stream, as an iterator of (event, id, data)."""
    token = token or await verifier.token(scope)
    headers = {"Authorization": f"Bearer {token}"} | ({} if last is None else {"Last-Event-ID": last})
    async with verifier.session.get(f"{verifier.url}/v1/events{query}", headers=headers) as reply:
        assert reply.status == 200, await reply.read()
        assert reply.headers["Content-Type"] == "text/event-stream"
        yield _parsed(reply)


async def _parsed(reply):
    fields = {}
    async for raw in reply.content:
        line = raw.decode().rstrip("\r\n")
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields["event"], fields["id"], json.loads(fields["data"])
            fields = {}


async def take(events, count):
    async def collect():
        return [await anext(events) for _ in range(count)]

    return await asyncio.wait_for(collect(), 30)


@pytest.fixture
async def live(verifier):
    async with delivering(verifier):
        yield verifier


async def test_a_stream_resumes_without_a_gap_or_a_duplicate(live):
    guests = [await live.guest(seed) for seed in range(1, 6)]
    async with stream(live, "?last_event_id=0") as events:
        ready, *first = await take(events, 4)
    assert ready[0] == "ready"
    await asyncio.gather(*(revoke(live, guest) for guest in guests))
    async with stream(live, last=first[-1][1]) as events:
        rest = (await take(events, 9))[1:]
    enrolled = [data["subject"] for kind, _, data in first + rest if kind == "attester.enrolled"]
    revoked = [data["subject"] for kind, _, data in first + rest if kind == "attester.revoked"]
    assert sorted(enrolled) == sorted(revoked) == sorted(guest.attester_id for guest in guests)
    assert len({number for _, number, _ in first + rest}) == 11


async def test_filters_and_tenants(live):
    guest, other = await live.guest(1), await live.guest(2)
    stranger = await live.token(Scope.DASHBOARD, tenant="other")
    async with (
        stream(
            live, f"?attester={other.attester_id}&kind=attester.revoked", scope=Scope.RELYING_PARTY
        ) as mine,
        stream(live, token=stranger) as foreign,
    ):
        await take(mine, 1)
        await take(foreign, 1)
        await revoke(live, guest)
        await revoke(live, other)
        ((kind, _, data),) = await take(mine, 1)
        assert (kind, data["data"]["attester_id"]) == ("attester.revoked", other.attester_id)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(foreign), 1)


async def test_bad_queries_are_refused(verifier):
    for query in (
        "?kind=nothing",
        "?kind=,",
        "?label=x",
        "?tier=gold",
        "?last_event_id=-1",
        "?x=1",
        "?last_event_id=99",
    ):
        answer = await verifier.get(f"/v1/events{query}", Scope.DASHBOARD)
        assert (answer.status, answer.code) == (400, "malformed-request"), query
    answer = await verifier.get("/v1/events", Scope.DASHBOARD, headers={"Last-Event-ID": "evt"})
    assert (answer.status, answer.code) == (400, "malformed-request")
    answer = await verifier.get("/v1/events?kind=policy.added", Scope.RELYING_PARTY)
    assert (answer.status, answer.code) == (403, "forbidden")
