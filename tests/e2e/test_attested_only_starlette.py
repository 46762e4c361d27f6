"""The gate before a Starlette application, served by uvicorn over TCP and a Unix socket: nothing of it is spoken by hand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.e2e.test_attested_only import AUDIENCE, Service, ear_of
from tests.e2e.test_client import asking
from tests.eventually import eventually
from verifier.client.asgi import ADMITTED, AttestedOnly
from verifier.client.callers import PresentedEar, Proxies, ProxyHeader
from verifier.client.gate import Gate
from verifier.client.requirement import Requirement


async def hello(request):
    admitted = request.scope.get(ADMITTED)
    return PlainTextResponse("open" if admitted is None else f"hello {admitted.standing.attester_id}")


@asynccontextmanager
async def served(gate, **options):
    """As `Starlette(middleware=[Middleware(AttestedOnly, …)])` is written and run."""
    gated = Middleware(AttestedOnly, gate=gate, open_paths=frozenset({"/health"}))
    app = Starlette(routes=[Route("/{rest:path}", hello)], middleware=[gated])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", **options))
    serving = asyncio.ensure_future(server._serve())
    try:
        await eventually(lambda: server.started)
        yield server
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def guest(verifier):
    guest = await verifier.guest()
    await guest.attest()
    return guest


async def test_starlette_behind_uvicorn(verifier, guest):
    token = await ear_of(verifier, guest)
    async with (
        asking(verifier) as client,
        served(Gate(client, Requirement(), [PresentedEar(client, AUDIENCE)]), port=0) as server,
        aiohttp.ClientSession() as session,
    ):
        (listening,) = server.servers
        service = Service(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", session)
        assert (await service.get(Attestation_Result=token))[:2] == (200, f"hello {guest.attester_id}")
        assert (await service.get("/health"))[1] == "open"
        await service.refused(401, "attestation-required")
        await service.refused(401, "attestation-invalid", Attestation_Result=token[:-3])


@pytest.mark.parametrize("proxies", [["127.0.0.1"], ["unix"]])
async def test_a_proxy_on_a_unix_socket_is_told_from_one_over_tcp(verifier, guest, tmp_path, proxies):
    path = str(tmp_path / "app.sock")
    claimed = {"X_Attester_Id": guest.attester_id}
    async with asking(verifier) as client:
        gate = Gate(client, Requirement(), [ProxyHeader(Proxies(proxies))])
        async with (
            served(gate, uds=path),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
        ):
            service = Service("http://app", session)
            if proxies == ["unix"]:
                assert (await service.get(**claimed))[0] == 200
            else:
                await service.refused(401, "attestation-invalid", **claimed)
        async with served(gate, port=0) as server, aiohttp.ClientSession() as session:
            service = Service(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", session)
            if proxies == ["unix"]:
                await service.refused(401, "attestation-invalid", **claimed)
            else:
                assert (await service.get(**claimed))[0] == 200


async def test_uvicorn_s_forwarded_addresses_take_nobody_in_who_is_not_the_proxy(verifier, guest):
    """uvicorn believes X-Forwarded-For from 127.0.0.1 unless told not to: then the caller's address is not the proxy's."""
    claimed = {"X_Attester_Id": guest.attester_id, "X_Forwarded_For": "203.0.113.7"}
    async with asking(verifier) as client:
        gate = Gate(client, Requirement(), [ProxyHeader(Proxies(["127.0.0.1"]))])
        for believed, status in ((True, 401), (False, 200)):
            async with (
                served(gate, port=0, proxy_headers=believed) as server,
                aiohttp.ClientSession() as session,
            ):
                service = Service(
                    f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", session
                )
                assert (await service.get(**claimed))[0] == status
