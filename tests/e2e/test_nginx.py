"""docs/examples/nginx before a small application: a real nginx, the real `attestctl guard`, a real verifier, real EARs."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import socket
import ssl
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.client_certificates import ISSUER, ClientCa, client_context, uri_of
from tests.conftest import ROOT
from tests.e2e.test_attested_only import Service, ear_of
from tests.eventually import eventually
from tests.harness import BIN, FakeClock, boot_log, running, settings_for
from verifier.logs import configure_logs
from verifier.ports import Scope

EXAMPLES = ROOT / "docs" / "examples" / "nginx"
AUDIENCE = "https://shop.example"
MAIN = """\
daemon off;
{user}
pid {here}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    include {here}/example.conf;
}}
"""


@pytest.fixture(scope="module")
def nginx():
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("SKIPPED FOR WANT OF NGINX: scripts/install-system-packages.sh test installs it")
    return program


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@asynccontextmanager
async def application(seen):
    """Behind nginx: says which attester it was told of, and keeps the headers it got."""

    async def handler(request):
        seen.append(request.headers)
        if request.path == "/broken":
            return web.Response(status=500, text="the application's own fault")
        return web.Response(
            text=f"hello {request.headers.get('X-Attester-Id')} {await request.text()}".strip()
        )

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def process(*arguments, **environment):
    running_one = await asyncio.create_subprocess_exec(
        *map(str, arguments), env=os.environ | environment, stdout=PIPE, stderr=PIPE
    )
    try:
        yield running_one
    finally:
        if running_one.returncode is None:
            running_one.terminate()
        await running_one.communicate()


async def listening(port):
    async def reachable():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await eventually(reachable)


@asynccontextmanager
async def guarding(verifier, port, *options):
    arguments = (BIN / "attestctl", "guard", "--listen", f"127.0.0.1:{port}", "--issuer", ISSUER, *options)
    environment = {
        "ATTESTCTL_SERVER": verifier.secure_url,
        "ATTESTCTL_CA": str(verifier.service.tls.ca),
        "ATTESTCTL_TOKEN": await verifier.token(Scope.RELYING_PARTY),
    }
    async with process(*arguments, **environment) as one:
        await listening(port)
        yield one


def configuration(directory, example, changes):
    """The example, with this machine's addresses and files in place of its own; each must be there to be replaced."""
    text = (EXAMPLES / example).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, str(new))
    directory.mkdir()
    (directory / "example.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(MAIN.format(here=directory, user=user))
    return directory / "nginx.conf"


def of_both(verifier, ca, port, behind):
    tls = verifier.service.tls
    return {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "127.0.0.1:8080": f"127.0.0.1:{behind}",
        "/etc/nginx/tls/shop.pem": tls.certificate,
        "/etc/nginx/tls/shop.key": tls.key,
        "/etc/nginx/tls/machines-ca.pem": ca.path,
    }


@asynccontextmanager
async def before(nginx, file, verifier, port):
    """A running nginx, as a service to call."""
    async with process(nginx, "-e", "stderr", "-c", file):
        await listening(port)
        trusted = ssl.create_default_context(cafile=verifier.service.tls.ca)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            yield Service(f"https://127.0.0.1:{port}", session, trusted)


@pytest.fixture
def clock():
    """nginx and the guard look at the time of day, so this one does too."""
    return FakeClock()


@pytest.fixture
async def verifier(tmp_path, clock):
    async with running(settings_for(tmp_path), clock) as harness:
        yield harness


@pytest.fixture
async def shop(verifier, nginx, tmp_path):
    """nginx as in attested.conf, before an application, and what the application saw."""
    seen, ca, port, guard_port = [], ClientCa(tmp_path / "clients"), free_port(), free_port()
    options = ("--audience", AUDIENCE, "--certificates", "--fresh-for", "1s")
    async with application(seen) as behind, guarding(verifier, guard_port, *options) as guard:
        changes = of_both(verifier, ca, port, behind) | {"127.0.0.1:9180": f"127.0.0.1:{guard_port}"}
        file = configuration(tmp_path / "nginx", "attested.conf", changes)
        async with before(nginx, file, verifier, port) as service:
            service.seen, service.ca, service.guard = seen, ca, guard
            yield service


async def test_nginx_lets_only_attested_callers_through(shop, verifier):
    guest = await verifier.guest()
    await guest.attest()
    token = await ear_of(verifier, guest, AUDIENCE)
    status, text, _ = await shop.get(Attestation_Result=token, X_Attester_Id="att-of-somebody-else")
    assert (status, text) == (200, f"hello {guest.attester_id}")
    assert shop.seen[0].getall("X-Attester-Id") == [guest.attester_id]
    assert shop.seen[0]["X-Attestation-Tier"] == "affirming"
    assert "Attestation-Result" not in shop.seen[0]
    for headers, status, code in (
        ({}, 401, "attestation-required"),
        ({"X_Attester_Id": guest.attester_id}, 401, "attestation-required"),
        ({"Attestation_Result": token[:-4]}, 401, "attestation-invalid"),
        (
            {"Attestation_Result": await ear_of(verifier, guest, "https://another.example")},
            401,
            "attestation-invalid",
        ),
    ):
        await shop.refused(status, code, **headers)
    assert len(shop.seen) == 1
    async with shop.session.post(
        f"{shop.url}/x", headers={"Attestation-Result": token}, data=b"a body", ssl=shop.tls
    ) as reply:
        assert (reply.status, await reply.text()) == (200, f"hello {guest.attester_id} a body")
    async with shop.session.get(
        f"{shop.url}/broken", headers={"Attestation-Result": token}, ssl=shop.tls
    ) as reply:
        assert (reply.status, await reply.text()) == (500, "the application's own fault")


async def test_the_guard_s_own_place_is_closed_to_callers(shop, verifier):
    guest = await verifier.guest()
    await guest.attest()
    token = await ear_of(verifier, guest, AUDIENCE)
    async with shop.session.get(
        f"{shop.url}/.guard", headers={"Attestation-Result": token}, ssl=shop.tls
    ) as reply:
        assert reply.status == 404
    assert shop.seen == []


async def test_a_contraindicated_machine_gets_the_reasons_through_nginx(shop, verifier):
    guest = await verifier.guest()
    guest.reboot(boot_log(secure=False))
    await guest.attest()
    problem = await shop.refused(
        403, "attestation-tier", Attestation_Result=await ear_of(verifier, guest, AUDIENCE)
    )
    assert problem["reasons"] == ["secure-boot-off"]
    assert shop.seen == []


async def test_client_certificates_through_nginx(shop, verifier, tmp_path):
    guest = await verifier.guest()
    await guest.attest()
    shown = client_context(verifier.service.tls.ca, shop.ca.issue("guest", uri_of(guest.attester_id)))
    status, text, _ = await shop.get(pair=shown)
    assert (status, text) == (200, f"hello {guest.attester_id}")
    forged = ClientCa(tmp_path / "strangers").issue("guest", uri_of(guest.attester_id))
    async with shop.session.get(shop.url, ssl=client_context(verifier.service.tls.ca, forged)) as reply:
        assert reply.status == 400, "nginx: the certificate does not verify"
    escaped = shop.ca.path.read_text().replace("\n", "%0A")
    await shop.refused(401, "attestation-required", X_Client_Cert=escaped, X_Client_Verify="SUCCESS")
    await shop.refused(401, "attestation-required", X_Forwarded_Client_Cert=f'Cert="{escaped}"')
    await verifier.post(f"/v1/attesters/{guest.attester_id}/revoke", {}, scope=Scope.OPERATOR)
    await asyncio.sleep(1.1)
    await shop.refused(403, "attestation-tier", pair=shown)


async def test_without_the_guard_nobody_comes_in(shop, verifier):
    guest = await verifier.guest()
    await guest.attest()
    token = await ear_of(verifier, guest, AUDIENCE)
    assert (await shop.get(Attestation_Result=token))[0] == 200
    shop.guard.terminate()
    _, err = await shop.guard.communicate()
    status, problem, headers = await shop.get(Attestation_Result=token)
    assert (status, problem["code"]) == (503, "verifier-unavailable")
    assert headers["Content-Type"] == "application/problem+json"
    lines = [json.loads(line) for line in err.decode().splitlines() if line.startswith("{")]
    assert lines == []
    assert len(shop.seen) == 1


async def test_without_a_guard_nginx_asks_the_verifier(verifier, nginx, tmp_path):
    """direct.conf."""
    seen, ca, port = [], ClientCa(tmp_path / "clients"), free_port()
    secret = tmp_path / "token.conf"
    secret.write_text(f'proxy_set_header Authorization "Bearer {await verifier.token(Scope.RELYING_PARTY)}";')
    good, bad, silent = [await verifier.guest(seed) for seed in (1, 2, 3)]
    await good.attest()
    bad.reboot(boot_log(secure=False))
    await bad.attest()
    async with application(seen) as behind:
        changes = of_both(verifier, ca, port, behind) | {
            "verifier.example:8443": verifier.secure_url.removeprefix("https://"),
            "/etc/nginx/tls/verifier-ca.pem": verifier.service.tls.ca,
            "proxy_ssl_name verifier.example": "proxy_ssl_name localhost",
            "/etc/nginx/verifier-token.conf": secret,
        }
        file = configuration(tmp_path / "nginx", "direct.conf", changes)
        async with before(nginx, file, verifier, port) as service:

            async def status(name, **headers):
                pair = client_context(verifier.service.tls.ca, ca.issue(name))
                async with service.session.get(service.url, ssl=pair, headers=headers) as reply:
                    return reply.status

            assert await status(good.attester_id, **{"If-None-Match": "*", "X-Attester-Id": "x"}) == 200
            assert seen[0].getall("X-Attester-Id") == [good.attester_id]
            names = [
                bad.attester_id,
                silent.attester_id,
                "att-nobody",
                "not a name",
                f"x,CN={good.attester_id}",
            ]
            assert [await status(name) for name in names] == [403] * len(names)
            async with service.session.get(service.url, ssl=service.tls) as reply:
                assert reply.status == 400, "no certificate"
            await verifier.post(f"/v1/attesters/{good.attester_id}/revoke", {}, scope=Scope.OPERATOR)
            assert await status(good.attester_id) == 403
    assert len(seen) == 1


STREAM = """\
load_module {module};
daemon off;
{user}
pid {here}/nginx.pid;
error_log stderr warn;
events {{}}
stream {{
    server {{
        listen 127.0.0.1:{port};
        proxy_pass {verifier};
        proxy_bind 127.0.0.2;
        proxy_protocol on;
    }}
}}
"""
MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


async def test_a_balancer_that_passes_tls_through_names_the_client(nginx, tmp_path):
    if not MODULE.exists():
        pytest.skip(
            "SKIPPED FOR WANT OF NGINX' STREAM MODULE: scripts/install-system-packages.sh test installs it"
        )
    settings = settings_for(
        tmp_path, '[listen]\nproxies = ["127.0.0.2/32"]\nproxy_protocol = true\n', LOG_ACCESS="true"
    )
    port, stream = free_port(), io.StringIO()
    async with running(settings) as verifier:
        user = "user root;" if os.geteuid() == 0 else ""
        address = verifier.secure_url.removeprefix("https://")
        file = tmp_path / "nginx.conf"
        file.write_text(STREAM.format(module=MODULE, user=user, here=tmp_path, port=port, verifier=address))
        configure_logs("json", "info", stream)
        async with process(nginx, "-e", "stderr", "-c", file):
            await listening(port)
            connector = aiohttp.TCPConnector(local_addr=("127.0.0.7", 0))
            trusted = ssl.create_default_context(cafile=verifier.service.tls.ca)
            async with (
                aiohttp.ClientSession(connector=connector) as client,
                client.get(f"https://127.0.0.1:{port}/healthz", ssl=trusted) as reply,
            ):
                assert reply.status == 200
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["peer"] for one in lines if one["event"] == "http.request"] == ["127.0.0.7"]
