"""How streams of events end, and what they cost meanwhile; and webhooks to a receiver with a private CA."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import ssl
from datetime import timedelta

import pytest

from tests.e2e.test_http_events import stream, take
from tests.e2e.test_http_webhooks import ALLOWED, add, delivering, revoke, tried, until
from tests.harness import running, settings_for
from tests.receivers import receiving
from verifier.keys.tls import own_tls
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.web import event_routes

SOON = 10
QUIET = "?kind=attester.enrolled"
"""Nothing of what the service itself does as it starts."""
HOUR = timedelta(hours=1)


@pytest.fixture
async def live(verifier):
    async with delivering(verifier):
        yield verifier


async def rest(events):
    """What comes until the stream ends by itself, in order: an abrupt end raises."""
    return await asyncio.wait_for(_all(events), SOON)


async def _all(events):
    return [each async for each in events]


async def test_a_stop_ends_open_streams_at_once_and_in_order(tmp_path, clock):
    """Well before the time that other requests get to end, and with the end mark that tells it from a broken connection."""
    settings = settings_for(tmp_path)
    context = running(settings, clock)
    verifier = await context.__aenter__()
    async with delivering(verifier), stream(verifier, QUIET) as events, stream(verifier, QUIET) as other:
        await take(events, 1)
        await take(other, 1)
        stopping = asyncio.ensure_future(verifier.runner.cleanup())
        assert await rest(events) == await rest(other) == []
        await asyncio.wait_for(stopping, SOON)
    assert verifier.service.services.feed.streams == 0
    await context.__aexit__(None, None, None)


async def test_a_token_that_is_revoked_ends_its_streams_and_no_other(live, monkeypatch):
    monkeypatch.setattr(event_routes, "_RECHECK", 0.2)
    record, token = await live.service.services.tokens.create(
        tenant=DEFAULT_TENANT, scopes=frozenset({Scope.DASHBOARD}), label="", lifetime=None, uses=None, actor="t"
    )  # fmt: skip
    async with stream(live, QUIET, token=token) as events, stream(live, QUIET) as other:
        await take(events, 1)
        await take(other, 1)
        await live.service.services.tokens.revoke(DEFAULT_TENANT, record.id, "test")
        assert await rest(events) == []
        guest = await live.guest()
        ((kind, _, data),) = await take(other, 1)
        assert (kind, data["subject"]) == ("attester.enrolled", guest.attester_id)
    again = await live.call("GET", "/v1/events", token=token)
    assert (again.status, again.code) == (401, "unauthenticated")


async def test_a_token_that_expires_ends_its_streams(live, clock, monkeypatch):
    monkeypatch.setattr(event_routes, "_RECHECK", 0.2)
    token = await live.token(Scope.DASHBOARD, lifetime=HOUR)
    async with stream(live, QUIET, token=token) as events:
        await take(events, 1)
        clock.advance(hours=2)
        assert await rest(events) == []


async def test_what_was_dropped_is_a_gap_and_not_silence(live, clock):
    guest = await live.guest(1)
    async with stream(live, "?last_event_id=0") as events:
        first = await take(events, 3)
    clock.advance(days=30)
    await revoke(live, guest)
    async with stream(live, last=first[-1][1]) as events:
        await take(events, 2)
    await live.service.services.outbox.purge_events(clock.now() - HOUR)
    async with stream(live, last="1") as events:
        gap, revoked = await take(events, 2)
    assert (gap[0], revoked[0]) == ("gap", "attester.revoked")
    async with stream(live, last=first[-1][1]) as events:
        assert [each[0] for each in await take(events, 2)] == ["ready", "attester.revoked"]
    listed = await live.attestctl("events", "--since", "1", "--json")
    assert (listed.json["gap"], len(listed.json["events"])) == (True, 1)
    people = await live.attestctl("events")
    assert "not kept any more" in people.err


async def test_places_for_streams_are_counted_and_given_back(tmp_path, clock):
    async with (
        running(settings_for(tmp_path, EVENTS_MAX_STREAMS="2"), clock) as verifier,
        delivering(verifier),
    ):
        async with stream(verifier) as events, stream(verifier) as other:
            await take(events, 1)
            await take(other, 1)
            refused = await verifier.get("/v1/events", Scope.DASHBOARD)
            assert (refused.status, refused.code) == (429, "rate-limited")
            assert "all 2 places for streams" in refused.json["detail"]
            assert int(refused.headers["Retry-After"]) > 0
            metrics = (await verifier.get("/metrics")).content.decode()
            assert "vtpm_attest_event_streams 2.0" in metrics
        # Bad queries take no place.
        assert (await verifier.get("/v1/events?kind=x", Scope.DASHBOARD)).status == 400
        await given_back(verifier)
        async with stream(verifier) as events:
            await take(events, 1)


async def given_back(verifier):
    async def wait():
        while verifier.service.services.feed.streams:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(wait(), SOON)


async def test_a_client_that_never_reads_is_cut_off_and_costs_little(live, monkeypatch):
    """There is far more to send than fits the system's buffers; as much as fits was read from the database, no more."""
    monkeypatch.setattr(event_routes, "_STALLED", 1.0)
    feed, pages = live.service.services.feed, 0
    await many_events(live, 30_000)
    read = feed.read

    async def counting(*arguments):
        nonlocal pages
        pages += 1
        return await read(*arguments)

    monkeypatch.setattr(feed, "read", counting)
    reader = await asking(live, "?last_event_id=0")
    while not feed.streams:
        await asyncio.sleep(0.02)
    while feed.streams:
        await asyncio.sleep(0.05)
    reader.close()
    assert 0 < pages < 75, "of 150"
    async with stream(live) as events:
        await take(events, 1)


async def test_a_client_that_never_reads_holds_up_no_stop(tmp_path, clock):
    context = running(settings_for(tmp_path), clock)
    verifier = await context.__aenter__()
    async with delivering(verifier):
        await many_events(verifier, 30_000)
        reader = await asking(verifier, "?last_event_id=0")
        while not verifier.service.services.feed.streams:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        await asyncio.wait_for(verifier.runner.cleanup(), SOON)
    reader.close()
    await context.__aexit__(None, None, None)


async def asking(verifier, query):
    """A connection that asks for the stream and reads nothing of it."""
    token = await verifier.token(Scope.DASHBOARD)
    host, _, port = verifier.url.removeprefix("http://").partition(":")
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(reader, (host, int(port)))
    request = f"GET /v1/events{query} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    await loop.sock_sendall(reader, request.encode())
    return reader


async def many_events(verifier, count):
    """Events with a kilobyte in each, put where the store keeps them."""
    path = verifier.service.settings.state_dir / "verifier.db"
    row = ("default", "policy.added", "p", 0, "{}", json.dumps({"x": "y" * 1000}))
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "insert into event (tenant, kind, subject, at, labels, data) values (?, ?, ?, ?, ?, ?)",
            (row for _ in range(count)),
        )
    while verifier.service.services.feed.head < count:
        await asyncio.sleep(0.05)


async def test_receivers_with_a_private_ca(tmp_path, clock):
    """Trusted where the setting names their CA, and refused where it does not."""
    own = own_tls(tmp_path / "receiver", ["127.0.0.1"], clock.now())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    trusting = {**ALLOWED, "WEBHOOKS_CA": str(own.ca), "WEBHOOKS_ALLOW_HTTP": "false"}
    async with receiving(tls=context) as receiver:
        assert receiver.url.startswith("https://")
        (tmp_path / "one").mkdir()
        settings = settings_for(tmp_path / "one", **trusting)
        async with running(settings, clock) as verifier, delivering(verifier):
            webhook, _ = await add(verifier, receiver.url, kinds=["attester.enrolled"])
            guest = await verifier.guest()
            assert (await receiver.next()).json["subject"] == guest.attester_id
            await until(verifier, webhook, "delivered")
        (tmp_path / "two").mkdir()
        settings = settings_for(tmp_path / "two", **ALLOWED)
        async with running(settings, clock) as verifier, delivering(verifier):
            webhook, _ = await add(verifier, receiver.url, kinds=["attester.enrolled"])
            await verifier.guest()
            await until(verifier, webhook, "pending")
            one = await tried(verifier, webhook, 1)
            assert "certificate" in one["problem"].lower()
        assert len(receiver.received) == 1


async def test_the_document_tells_of_the_header(verifier):
    document = (await verifier.call("GET", "/openapi.json")).json
    parameters = document["paths"]["/v1/events"]["get"]["parameters"]
    (header,) = [each for each in parameters if each["in"] == "header"]
    assert (header["name"], header["required"]) == ("Last-Event-ID", False)
    (query,) = [each for each in parameters if each["name"] == "last_event_id"]
    assert header["schema"]["pattern"] == query["schema"]["pattern"]
