"""The gate before an ASGI application, spoken to as ASGI 3.0 has it, with a real verifier and real EARs."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

from tests.client_certificates import ISSUER, ClientCa, uri_of
from tests.e2e.test_attested_only import AUDIENCE, ear_of
from tests.e2e.test_client import asking
from verifier.client import Tier
from verifier.client.asgi import ADMITTED, AttestedOnly
from verifier.client.callers import ClientCertificate, Naming, PresentedEar, Proxies, ProxyHeader
from verifier.client.gate import Gate
from verifier.client.requirement import Requirement


async def application(scope, receive, send):
    """Answers with who was let in; says on which kinds of connection it was reached."""
    scope["reached"].append(scope["type"])
    if scope["type"] == "http":
        admitted = scope.get(ADMITTED)
        name = "nobody" if admitted is None else admitted.standing.attester_id
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": name.encode()})


async def spoken(app, kind="http", *, headers=(), path="/", client=("192.0.2.1", 5), **more):
    """The messages that one connection is answered with, and which kinds reached the application."""
    sent, reached = [], []
    scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "path": path,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": client,
        "server": ("192.0.2.9", 443),
        "reached": reached,
    } | more

    async def receive():
        return {"type": f"{kind}.connect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent, reached


@pytest.fixture
async def guest(verifier):
    guest = await verifier.guest()
    await guest.attest()
    return guest


@asynccontextmanager
async def gated(verifier, *sources):
    async with asking(verifier) as client:
        found = [source(client) for source in sources] or [PresentedEar(client, AUDIENCE)]
        gate = Gate(client, Requirement(min_tier=Tier.AFFIRMING), found)
        yield AttestedOnly(application, gate, open_paths=frozenset({"/health"}))


async def test_http(verifier, guest):
    token = await ear_of(verifier, guest)
    async with gated(verifier) as app:
        sent, reached = await spoken(app, headers=[("Attestation-Result", token)])
        assert (sent[0]["status"], sent[1]["body"].decode(), reached) == (200, guest.attester_id, ["http"])
        sent, reached = await spoken(app, path="/health")
        assert (sent[1]["body"], reached) == (b"nobody", ["http"])
        for headers in ([], [("Attestation-Result", token)] * 2, [("Attestation-Result", token[:-2])]):
            sent, reached = await spoken(app, headers=headers)
            problem = json.loads(sent[1]["body"])
            assert (problem["status"], reached) == (sent[0]["status"], [])
            assert sent[0]["status"] in {401, 403}
            assert (b"content-type", b"application/problem+json") in sent[0]["headers"]


async def test_websocket(verifier, guest):
    token = await ear_of(verifier, guest)
    async with gated(verifier) as app:
        _, reached = await spoken(app, "websocket", headers=[("Attestation-Result", token)])
        assert reached == ["websocket"]
        for path in ("/", "/health"):
            sent, reached = await spoken(app, "websocket", path=path)
            assert (sent, reached) == (
                [{"type": "websocket.close", "code": 1008, "reason": "attestation-required"}],
                [],
            )
        sent, _ = await spoken(app, "websocket", extensions={"websocket.http.response": {}})
        assert [message["type"] for message in sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert sent[0]["status"] == 401


async def test_start_and_stop_pass_and_nothing_unheard_of_does(verifier):
    async with gated(verifier) as app:
        assert (await spoken(app, "lifespan"))[1] == ["lifespan"]
        with pytest.raises(ValueError, match="webtransport"):
            await spoken(app, "webtransport")


async def test_a_certificate_of_the_tls_extension_counts_unless_it_failed(verifier, guest, tmp_path):
    ca = ClientCa(tmp_path / "clients")
    pem = ca.issue("guest", uri_of(guest.attester_id))[0].read_text()
    async with gated(verifier, lambda _: ClientCertificate(Naming(issuer=ISSUER))) as app:
        for tls, status in (
            ({"client_cert_chain": [pem], "client_cert_error": None}, 200),
            ({"client_cert_chain": [pem], "client_cert_error": "expired"}, 401),
            ({"client_cert_chain": []}, 401),
            ({"client_cert_chain": ["-----BEGIN"]}, 401),
            (None, 401),
        ):
            sent, _ = await spoken(app, extensions={"tls": tls})
            assert sent[0]["status"] == status, tls


async def test_a_proxy_is_known_by_the_connection(verifier, guest):
    claimed = {"headers": [("X-Attester-Id", guest.attester_id)]}
    unix = {"client": None, "server": ("/run/app.sock", None)}
    async with gated(verifier, lambda _: ProxyHeader(Proxies(["10.0.0.0/8", "unix"]))) as app:
        for connection, status in (
            ({"client": ("10.1.2.3", 1)}, 200),
            ({"client": ("::ffff:10.1.2.3", 1)}, 200),
            (unix, 200),
            ({"client": ("192.0.2.1", 1)}, 401),
            ({"client": None}, 401),
            ({"client": ("unix", 0)}, 401),
            ({"client": ("10.1.2.3.evil", 1)}, 401),
        ):
            sent, _ = await spoken(app, **claimed, **connection)
            assert sent[0]["status"] == status, connection
