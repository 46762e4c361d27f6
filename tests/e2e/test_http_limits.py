"""How often who may call: by identity, tenant, address and machine; nobody uses up what is another's."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from agent.errors import RefusedError
from agent.session import Attest, Challenged, Failed, Goal, Session, Wait, Woke
from agent.transport import Server, Transport, trusting
from agent.wire import messages as wire
from agent.wire.codec import JSON, decode, encode
from tests.e2e.test_dashboard import look, session
from tests.harness import Guest, running, settings_for
from tests.secrets import ask, grant, put
from verifier.ports import Scope

WRONG = f"vta1.{'A' * 43}"


@asynccontextmanager
async def limited(folder, clock, limits, listen=""):
    async with running(settings_for(folder, f"[limits]\n{limits}\n[listen]\n{listen}\n"), clock) as harness:
        yield harness


async def statuses(verifier, count, path="/v1/status", **options):
    return [(await verifier.call("GET", path, **options)).status for _ in range(count)]


async def turned_away(verifier):
    page = (await verifier.get("/metrics", Scope.ADMIN)).content.decode()
    return {
        line.split('"')[1]: int(float(line.rpartition(" ")[2]))
        for line in page.splitlines()
        if line.startswith("vtpm_attest_rate_limited_total{")
    }


async def test_a_caller_has_its_own_measure_and_is_told_when_to_come_back(tmp_path, clock):
    async with limited(tmp_path, clock, 'calls_per_identity = 2\nburst = "3s"') as verifier:
        eager, other = await verifier.token(Scope.DASHBOARD), await verifier.token(Scope.DASHBOARD)
        assert await statuses(verifier, 8, token=eager) == [200] * 6 + [429] * 2
        answer = await verifier.call("GET", "/v1/status", token=eager)
        assert (answer.code, answer.headers["Retry-After"], answer.json["retry_after"]) == (
            "rate-limited",
            "1",
            1,
        )
        assert "this caller" in answer.json["detail"]
        assert await statuses(verifier, 6, token=other) == [200] * 6
        clock.advance(seconds=1)
        assert await statuses(verifier, 3, token=eager) == [200] * 2 + [429]
        assert (await turned_away(verifier))["identity"] == 4


async def test_a_call_without_the_scope_counts_and_one_with_a_wrong_token_does_not(tmp_path, clock):
    async with limited(tmp_path, clock, 'calls_per_identity = 1\nburst = "2s"') as verifier:
        token = await verifier.token(Scope.RELYING_PARTY)
        assert await statuses(verifier, 3, token=token) == [403, 403, 429]
        assert await statuses(verifier, 3, token=WRONG) == [401] * 3


async def test_a_tenant_s_callers_together_do_not_starve_another_tenant(tmp_path, clock):
    limits = 'calls_per_identity = 4\ncalls_per_tenant = 6\nburst = "1s"'
    async with limited(tmp_path, clock, limits) as verifier:
        crowd = [await verifier.token(Scope.DASHBOARD, tenant="globex") for _ in range(5)]
        found = [await statuses(verifier, 3, token=one) for one in crowd]
        assert sum(one.count(200) for one in found) == 6
        assert await statuses(verifier, 4, scope=Scope.DASHBOARD) == [200] * 4
        assert (await turned_away(verifier))["tenant"] == 9


async def test_what_nobody_limits_is_not_limited(tmp_path, clock):
    limits = "calls_per_identity = 0\nrefusals_per_address = 0\nattestations_per_attester = 0"
    async with limited(tmp_path, clock, limits) as verifier:
        assert set(await statuses(verifier, 50, scope=Scope.DASHBOARD)) == {200}
        assert set(await statuses(verifier, 50, token=WRONG)) == {401}
        assert set((await turned_away(verifier)).values()) == {0}


async def test_an_address_has_a_measure_that_no_probe_counts_in_and_a_proxy_tells_whose_it_is(
    tmp_path, clock
):
    limits = 'calls_per_address = 1\nburst = "2s"'
    async with limited(tmp_path, clock, limits, 'proxies = ["127.0.0.0/8"]') as verifier:
        assert await statuses(verifier, 5, "/healthz") == [200] * 5
        assert await statuses(verifier, 1, "/readyz") == [200]
        assert await statuses(verifier, 3, "/openapi.json") == [200, 200, 429]
        assert await statuses(verifier, 1, "/dashboard/login") == [429]
        guest = {"X-Forwarded-For": "192.0.2.7"}
        asked = await verifier.post("/v1/challenges", {"attester_id": "att-x"}, headers=guest)
        assert asked.status == 404
        assert await statuses(verifier, 2, "/v1/ca", headers=guest) == [200, 429]
        near, far = ({"X-Forwarded-For": f"2001:db8:0:1::{end}"} for end in (1, 2))
        assert await statuses(verifier, 2, "/v1/ca", headers=near) == [200] * 2
        assert await statuses(verifier, 1, "/v1/ca", headers=far) == [429], "the same /64"


async def test_nobody_is_believed_that_is_no_proxy(tmp_path, clock):
    async with limited(tmp_path, clock, 'calls_per_address = 1\nburst = "2s"') as verifier:
        found = [
            (await statuses(verifier, 1, "/v1/ca", headers={"X-Forwarded-For": f"192.0.2.{end}"}))[0]
            for end in range(3)
        ]
        assert found == [200, 200, 429]


async def test_an_address_that_tries_credentials_waits_while_known_callers_and_machines_behind_it_go_on(
    tmp_path, clock
):
    async with limited(tmp_path, clock, 'refusals_per_address = 1\nburst = "5s"') as verifier:
        guest = await verifier.guest()
        known, unused = await verifier.token(Scope.DASHBOARD), await verifier.token(Scope.DASHBOARD)
        assert await statuses(verifier, 1, token=known) == [200]
        wrong = [
            (await verifier.call("GET", "/v1/status", token=f"vta1.{end:043}")).status for end in range(7)
        ]
        assert wrong == [401] * 5 + [429] * 2
        clock.advance(seconds=0.5)
        assert await statuses(verifier, 10, token=known) == [200] * 10
        assert await statuses(verifier, 1, token=unused) == [429]
        assert (await guest.attest()).status == 200
        refused = await Guest.booted(verifier, 2).harness.post(
            "/v1/enrollments", Guest.booted(verifier, 2).enrollment(await verifier.token(Scope.JOIN))
        )
        assert (refused.status, refused.code) == (429, "rate-limited")
        clock.advance(seconds=1)
        assert await statuses(verifier, 1, token=unused) == [200]
        await verifier.guest(2)


async def test_join_tokens_and_the_dashboard_s_way_in_are_credentials_too(tmp_path, clock):
    async with limited(tmp_path, clock, 'refusals_per_address = 1\nburst = "2s"') as verifier:
        wrong = Guest.booted(verifier).enrollment(f"vtj1.{'A' * 43}")
        assert [(await verifier.post("/v1/enrollments", wrong)).status for _ in range(3)] == [401, 401, 429]
        clock.advance(seconds=2)

        async def sign_in():
            data = {"token": WRONG, "next": ""}
            return (await verifier.call("POST", "/dashboard/login", data=data)).status

        assert [await sign_in() for _ in range(3)] == [403, 403, 429]


async def test_a_machine_in_a_loop_fills_no_database_and_nobody_can_use_up_what_is_its(tmp_path, clock):
    async with limited(tmp_path, clock, "attestations_per_attester = 3") as verifier:
        guest, other = await verifier.guest(1), await verifier.guest(2)
        for _ in range(5):  # in the guest's name, by somebody else
            forged = other.evidence(await guest.challenge(), attester_id=guest.attester_id)
            assert (await verifier.post("/v1/attestations", forged)).code == "quote-signature"
        assert [(await guest.attest()).status for _ in range(3)] == [200] * 3
        before = verifier.rows()
        answer = await guest.attest()
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, "rate-limited", "20")
        assert verifier.rows() == before
        assert (await other.attest()).status == 200
        clock.advance(seconds=20)
        assert [(await guest.attest()).status for _ in range(2)] == [200, 429]


async def test_a_tenant_s_machines_leave_room_for_another_s(tmp_path, clock):
    limits = 'attestations_per_tenant = 2\nburst = "2s"'
    async with limited(tmp_path, clock, limits) as verifier:
        own = await verifier.guest(1)
        crowd = [Guest.booted(verifier, seed) for seed in (2, 3, 4)]
        for one in crowd:
            await one.enroll(await verifier.token(Scope.JOIN, tenant="globex"))
        found = [(await one.attest()).status for _ in range(2) for one in crowd]
        assert found == [200] * 4 + [429] * 2
        assert [(await own.attest()).status for _ in range(3)] == [200] * 3
        assert (await turned_away(verifier))["machines"] == 2
        clock.advance(seconds=1)
        assert [(await one.attest()).status for one in crowd] == [200, 200, 429]


async def test_the_agent_waits_as_long_as_it_is_told_and_then_sends_the_same_again(tmp_path, clock):
    async with limited(tmp_path, clock, "attestations_per_attester = 1") as verifier:
        guest = await verifier.guest()
        assert (await guest.attest()).status == 200
        session = Session(
            goal=Goal.FOREVER,
            attester_id=guest.attester_id,
            may_reenroll=False,
            patience=None,
            random=lambda: 0.0,
            pending=False,
        )
        challenge = await guest.challenge()
        session.handle(Challenged(decode(encode(challenge, JSON), wire.Challenge, JSON)))
        wanted = session.next_action()
        assert isinstance(wanted, Attest)
        body = decode(encode(guest.evidence(challenge), JSON), wire.AttestationRequest, JSON)
        server = Server.parse(verifier.secure_url)
        with Transport(server, trusting(verifier.service.tls.ca.read_text())) as transport:

            async def send():
                return await asyncio.to_thread(
                    transport.post, "/v1/attestations", body, wire.AttestationReply
                )

            with pytest.raises(RefusedError) as caught:
                await send()
            session.handle(Failed(caught.value))
            pause = session.next_action()
            assert isinstance(pause, Wait)
            assert pause.seconds == 60
            clock.advance(seconds=pause.seconds)
            session.handle(Woke())
            assert session.next_action() == wanted
            assert (await send()).verdict.status == "affirming"


async def test_questions_for_secrets_are_attestations_and_a_session_is_its_token_s(tmp_path, clock):
    limits = 'attestations_per_attester = 2\ncalls_per_identity = 2\nburst = "1s"'
    async with limited(tmp_path, clock, limits) as verifier:
        guest = await verifier.guest()
        await put(verifier)
        await grant(verifier, attester=guest.attester_id)
        assert [(await ask(guest)).status for _ in range(3)] == [200, 200, 429]
        clock.advance(seconds=60)
        assert [(await ask(guest, "another")).status for _ in range(3)] == [404, 404, 429], (
            "they were recorded"
        )
        cookie, _ = await session(verifier)
        assert [(await look(verifier, "/dashboard", cookie)).status for _ in range(3)] == [200, 200, 429]


async def through(verifier, header: bytes, path="/v1/ca", count=1):
    """Statuses of requests over TLS on a connection that begins with this header; empty where it was closed."""
    port = urlsplit(verifier.secure_url).port
    context = ssl.create_default_context(cafile=verifier.service.tls.ca)
    raw = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port))
    raw.sendall(header)
    raw.setblocking(False)
    try:
        reader, writer = await asyncio.open_connection(sock=raw, ssl=context, server_hostname="localhost")
    except (ssl.SSLError, ConnectionError):
        return []
    found = []
    for _ in range(count):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        found.append(int(head.split()[1]))
        length = re.search(rb"(?i)content-length: (\d+)", head)
        await reader.readexactly(int(length[1]))
    writer.transport.abort()
    return found


async def test_a_balancer_that_passes_tls_through_says_whose_connection_it_is(tmp_path, clock, log):
    limits = 'calls_per_address = 1\nburst = "2s"'
    listen = 'proxies = ["127.0.0.0/8"]\nproxy_protocol = true'
    async with limited(tmp_path, clock, limits, listen) as verifier:
        one, other = (f"PROXY TCP4 192.0.2.{end} 10.0.0.9 40000 443\r\n".encode() for end in (1, 2))
        assert await through(verifier, one, count=3) == [200, 200, 429]
        assert await through(verifier, one) == [429]
        assert await through(verifier, other) == [200]
        assert await through(verifier, b"") == [], "a balancer that says nothing"
        assert await through(verifier, b"PROXY nonsense\r\n") == []
        assert await through(verifier, b"PROXY UNKNOWN\r\n", count=3) == [200, 200, 429], "the balancer's own"


async def test_nobody_but_a_balancer_says_whose_connection_it_is(tmp_path, clock):
    limits, listen = (
        'calls_per_address = 1\nburst = "2s"',
        'proxies = ["192.0.2.0/24"]\nproxy_protocol = true',
    )
    async with limited(tmp_path, clock, limits, listen) as verifier:
        assert await through(verifier, b"PROXY TCP4 192.0.2.1 10.0.0.9 40000 443\r\n") == []
        assert await through(verifier, b"") == [200]
