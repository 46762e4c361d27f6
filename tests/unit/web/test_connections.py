"""How many connections stay open, and which of them make room for others."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness import Guest, running, settings_for
from verifier.service.admission import Party
from verifier.web.connections import LARGE, Connections
from verifier.web.runner import CONNECTIONS

MOST = 16
HEAD = b"GET /healthz HTTP/1.1\r\nHost: verifier.test\r\n\r\n"


class Client:
    """One connection of a machine."""

    def __init__(self, reader, writer) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, verifier) -> Client:
        host, _, port = verifier.url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self) -> bytes:
        """Status line of an answer; empty where the connection was closed."""
        try:
            self.writer.write(HEAD)
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self.reader.readexactly(length)
        return head.partition(b"\r\n")[0]


@pytest.fixture
async def verifier(tmp_path, monkeypatch):
    monkeypatch.setattr("verifier.web.connections._REST", 0.0)
    settings = settings_for(tmp_path, LIMITS_CONNECTIONS=str(MOST))
    async with running(settings) as harness:
        yield harness


async def number(verifier, name: str) -> float:
    page = (await verifier.get("/metrics")).content.decode()
    (line,) = (line for line in page.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


async def test_those_idle_longest_make_room_and_whoever_spoke_last_stays(verifier):
    clients = [await Client.of(verifier) for _ in range(MOST - 2)]
    for client in clients:
        assert await client.ask() == b"HTTP/1.1 200 OK"
    assert await clients[0].ask() == b"HTTP/1.1 200 OK"  # it has not been idle longest any more
    more = [await Client.of(verifier) for _ in range(5)]
    for client in more:
        assert await client.ask() == b"HTTP/1.1 200 OK"
    assert await clients[0].ask() == b"HTTP/1.1 200 OK"
    assert await clients[1].ask() == b""
    assert await clients[-1].ask() == b"HTTP/1.1 200 OK"
    assert await number(verifier, "vtpm_attest_connections") <= MOST
    assert await number(verifier, "vtpm_attest_connections_shed_total") >= 3


async def test_whoever_is_sent_away_keeps_no_connection(tmp_path):
    settings = settings_for(tmp_path, LIMITS_SLOTS="1", LIMITS_QUEUE="0")
    async with running(settings) as verifier:
        admission = verifier.service.services.admission
        with admission.enter(Party.BOOTED):
            away = await verifier.post("/v1/challenges", {"attester_id": "att-1"})
        assert away.status == 503
        assert away.headers["Connection"] == "close"


async def test_a_guest_whose_connection_was_closed_attests_over_another(verifier):
    guest = await verifier.guest()
    for _ in range(2 * MOST):
        await (await Client.of(verifier)).ask()
    assert (await guest.attest()).status == 200


async def test_a_connection_with_a_request_is_not_closed(verifier):
    guest = await verifier.guest()
    assert (await guest.attest()).status == 200
    path = f"/v1/attesters/{guest.attester_id}/verdict"
    tag = (await verifier.get(path)).headers["ETag"]
    waiting = asyncio.create_task(verifier.get(f"{path}?wait=20", headers={"If-None-Match": tag}))
    await asyncio.sleep(0.2)
    for _ in range(3 * MOST):
        await (await Client.of(verifier)).ask()
    assert not waiting.done()
    assert (await guest.attest()).status == 200
    assert (await waiting).status == 200


async def test_one_that_has_carried_a_boot_log_is_closed_with_the_answer(verifier):
    """The buffer that it went through would stay with the connection."""
    guest = Guest.booted(verifier, log=None)
    await guest.enroll()
    first = await guest.attest(boot_log={"content": "A" * 2 * LARGE})
    assert first.headers.get("Connection") == "close"
    await guest.attest()
    again = await guest.attest(boot_log={"sha256": (await guest.challenge())["boot_log_sha256"]})
    assert again.status == 200
    assert "Connection" not in again.headers


class Fake:
    """A connection whose client says goodbye at once."""

    closed = False

    def __init__(self, kept: Connections) -> None:
        self.kept = kept

    def force_close(self) -> None:
        self.closed = True
        self.kept.lost(self)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_where_all_are_busy_none_is_closed():
    time = Time()
    kept = Connections(2, 100, time)
    many = [Fake(kept) for _ in range(5)]
    for one in many:
        kept.made(one)
        kept.busy(one)
    time.now = 60.0
    assert not any(one.closed for one in many)
    assert len(kept) == 5
    kept.idle(many[3])
    time.now = 120.0
    late = Fake(kept)
    kept.made(late)
    assert [one.closed for one in many] == [False, False, False, True, False]
    assert not late.closed
    kept.lost(many[3])
    kept.lost(late)
    kept.idle(late)  # answered when it was gone already
    assert len(kept) == 4
    assert kept.shed == 1


def test_whoever_has_just_come_or_was_just_answered_stays():
    """Or a boot storm would push out everybody between two requests."""
    time = Time()
    kept = Connections(2, 100, time)
    many = [Fake(kept) for _ in range(6)]
    for one in many[:4]:
        kept.made(one)
    kept.busy(many[0])
    kept.idle(many[0])
    kept.made(many[4])
    assert not any(one.closed for one in many)
    assert len(kept) == 5
    time.now = 60.0
    kept.busy(many[2])
    kept.idle(many[2])
    kept.made(many[5])
    assert [one.closed for one in many] == [True, True, False, True, True, False]
    assert len(kept) == 2


def test_a_storm_pushes_out_no_steady_machine():
    time = Time()
    kept = Connections(4, 8, time)
    steady, storm = [Fake(kept) for _ in range(3)], [Fake(kept) for _ in range(9)]
    for one in steady:
        kept.made(one)
        kept.busy(one)
        kept.steady(one)
        kept.idle(one)
    for one in storm[:5]:
        time.now += 60.0
        kept.made(one)
    assert not any(one.closed for one in steady)
    assert [one.closed for one in storm[:5]] == [True] * 4 + [False]
    for one in storm[5:]:
        kept.made(one)
    time.now += 60.0
    assert len(kept) == 8
    assert kept.has_room_for(1)  # one of the storm was closed for it
    assert not any(one.closed for one in steady)


def test_of_steady_machines_that_are_more_than_are_kept_the_one_idle_longest_goes():
    time = Time()
    kept = Connections(3, 8, time)
    many = [Fake(kept) for _ in range(5)]
    for one in many:
        time.now += 60.0
        kept.made(one)
        kept.busy(one)
        kept.steady(one)
        kept.idle(one)
    assert [one.closed for one in many] == [True, True, False, False, False]
    assert len(kept) == 3


async def test_a_steady_attestation_keeps_its_connection_through_a_storm(verifier):
    """Its guest would have to wait behind all those that connect."""
    guest = await verifier.guest()
    await guest.attest()
    held = {"sha256": (await guest.challenge())["boot_log_sha256"]}
    assert (await guest.attest(boot_log=held)).status == 200
    (steady,) = verifier.runner.app[CONNECTIONS]._steady
    for _ in range(4 * MOST):
        assert await (await Client.of(verifier)).ask() == b"HTTP/1.1 200 OK"
    assert (await guest.attest(boot_log=held)).status == 200
    assert verifier.runner.app[CONNECTIONS]._steady == {steady}


async def test_no_answer_is_cut_off_to_make_room(verifier, monkeypatch):
    """However many come meanwhile, and however long the answer takes to be sent."""
    monkeypatch.setattr("verifier.web.connections._REST", -1.0)
    clients = [await Client.of(verifier) for _ in range(8 * MOST)]
    answers = await asyncio.gather(*(client.ask() for client in clients[-MOST:]))
    assert answers == [b"HTTP/1.1 200 OK"] * MOST
