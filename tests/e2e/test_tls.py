"""What the listener speaks: no old protocol, no weak cipher, HSTS on whatever it answers."""

from __future__ import annotations

import asyncio
import re
import ssl
from urllib.parse import urlsplit

import pytest

from verifier.web.app import ROUTES
from verifier.web.dashboard.handlers import PAGES

OLD = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
EVERY = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
GOOD = re.compile(r"ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM-SHA(256|384)|CHACHA20-POLY1305)")


def client(low, high, ciphers=EVERY):
    """One that would speak anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    context.minimum_version, context.maximum_version = low, high
    return context


async def agreed(port, context):
    """Version and cipher that both sides agree on, or None."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    except (ssl.SSLError, ConnectionError):
        return None
    found = writer.get_extra_info("cipher")
    writer.transport.abort()
    return found[1], found[0]


@pytest.fixture
async def careless(verifier):
    """A server with the same certificate that takes whatever it is offered: what our client can speak at all."""
    tls = verifier.service.tls
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(EVERY)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.load_cert_chain(tls.certificate, tls.key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize("version", OLD, ids=str)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_protocols_are_refused(verifier, careless, version):
    port = urlsplit(verifier.secure_url).port
    assert (await agreed(careless, client(version, version)))[0].startswith("TLSv1")
    assert await agreed(port, client(version, version)) is None


async def test_of_all_ciphers_only_those_with_forward_secrecy_and_aead_are_spoken(verifier, careless):
    port = urlsplit(verifier.secure_url).port
    names = [
        one["name"] for one in client(None or ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2).get_ciphers()
    ]
    older = [name for name in names if not name.startswith("TLS_")]
    spoken = {"verifier": set(), "careless": set()}
    for name in older:
        offer = client(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, f"{name}:@SECLEVEL=0")
        for who, where in (("verifier", port), ("careless", careless)):
            found = await agreed(where, offer)
            if found is not None:
                assert found[1] == name
                spoken[who].add(name)
    assert spoken["verifier"] == {name for name in spoken["careless"] if GOOD.fullmatch(name)}
    assert len(spoken["verifier"]) >= 3
    weak = spoken["careless"] - spoken["verifier"]
    assert {"ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-CCM8"} <= weak, "our client does speak these"


async def test_a_client_of_now_gets_tls_1_3(verifier):
    version, cipher = await agreed(urlsplit(verifier.secure_url).port, ssl._create_unverified_context())
    assert version == "TLSv1.3"
    assert cipher.startswith("TLS_")


async def test_whatever_is_answered_tells_browsers_to_come_over_https_alone(verifier):
    paths = {(one.method, re.sub(r"\{\w+\}", "x", one.path)) for one in (*ROUTES, *PAGES)}
    paths |= {
        ("GET", "/nowhere"),
        ("DELETE", "/healthz"),
        ("GET", "/dashboard/static/x/y"),
        ("HEAD", "/openapi.json"),
    }
    style = re.search(
        r"/dashboard/static/[^\"]+", (await verifier.call("GET", "/dashboard/login")).content.decode()
    )
    for method, path in sorted({*paths, ("GET", style[0])}):
        answer = await verifier.call(method, path, allow_redirects=False)
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000", (
            method,
            path,
            answer.status,
        )
