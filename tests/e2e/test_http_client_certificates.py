"""TLS client certificates as credentials of the API, in real handshakes."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.client_certificates import ClientCa, client_context
from tests.harness import running, settings_for
from verifier.crypto.client_certificate import read_client_certificate

DASHBOARD, WEB = "spiffe://estate.test/dashboard", "spiffe://estate.test/web"
ROLES = [
    f"uri:{DASHBOARD}=dashboard",
    f"uri:{WEB}=relying-party",
    "uri:spiffe://estate.test/globex=dashboard@globex",
    "dns:Ops.estate.test=operator",
]


@pytest.fixture
def ca(tmp_path):
    return ClientCa(tmp_path / "clients")


def settings(tmp_path, ca, crl=None):
    lines = ["[client_certificates]", f'ca = "{ca.path}"', f"roles = {json.dumps(ROLES)}"]
    return settings_for(tmp_path, "\n".join(lines + ([f'crl = "{crl}"'] if crl else [])))


@pytest.fixture
async def verifier(tmp_path, ca):
    async with running(settings(tmp_path, ca)) as harness:
        yield harness


async def ask(verifier, pair, path="/v1/attesters", headers=None, version=None):
    context = client_context(verifier.service.tls.ca, pair)
    if version is not None:
        context.maximum_version = version
    async with (
        aiohttp.ClientSession() as session,
        session.get(verifier.secure_url + path, ssl=context, headers=headers or {}) as reply,
    ):
        return reply.status, await reply.json()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_a_name_opens_what_it_is_granted_and_nothing_else(verifier, ca, version):
    await verifier.guest()
    pair = ca.issue("dashboard", DASHBOARD)
    status, found = await ask(verifier, pair, version=version)
    assert (status, len(found["attesters"])) == (200, 1)
    status, refused = await ask(verifier, pair, "/v1/audit", version=version)
    assert (status, refused["code"]) == (403, "forbidden")


async def test_who_shows_none_is_asked_for_a_token_and_guests_need_neither(verifier):
    status, refused = await ask(verifier, None)
    assert (status, refused["code"]) == (401, "unauthenticated")
    guest = await verifier.guest()
    assert (await guest.attest()).status == 200


async def test_a_token_that_is_sent_counts_and_not_the_certificate(verifier, ca):
    """Whoever sends a credential wants to be judged by it: a wrong one is not made good by the connection."""
    status, refused = await ask(
        verifier, ca.issue("dashboard", DASHBOARD), headers={"Authorization": "Bearer vta1.wrong"}
    )
    assert (status, refused["code"]) == (401, "unauthenticated")


async def test_the_tenant_of_the_grant_is_what_it_sees(verifier, ca):
    await verifier.guest()
    assert (await ask(verifier, ca.issue("globex", "spiffe://estate.test/globex")))[1]["attesters"] == []
    both = await ask(verifier, ca.issue("both", DASHBOARD, "spiffe://estate.test/globex"))
    assert (both[0], both[1]["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(
    "uris",
    [(), ("spiffe://estate.test/stranger",), (f"{DASHBOARD}/below",), (DASHBOARD.upper(),)],
    ids=["no name", "stranger", "longer", "case"],
)
async def test_a_trusted_certificate_without_a_granted_name_opens_nothing(verifier, ca, uris):
    status, refused = await ask(verifier, ca.issue("x", *uris))
    assert (status, refused["code"]) == (401, "unauthenticated")


async def test_the_common_name_says_nothing(verifier, ca):
    status, _ = await ask(verifier, ca.issue(DASHBOARD.rpartition("/")[2]))
    assert status == 401


async def test_a_certificate_of_another_ca_with_the_same_name_does_not_connect(verifier, tmp_path):
    stranger = ClientCa(tmp_path / "strangers")
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        await ask(verifier, stranger.issue("dashboard", DASHBOARD))


async def test_a_revoked_certificate_does_not_connect_and_the_others_do(tmp_path, ca):
    revoked, good = ca.issue("revoked", DASHBOARD), ca.issue("good", DASHBOARD)
    serial = x509.load_pem_x509_certificate(revoked[0].read_bytes()).serial_number
    now = datetime.now(UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(now - timedelta(hours=1))
    )
    crl = tmp_path / "clients.crl"
    crl.write_bytes(
        builder.next_update(now + timedelta(days=1))
        .add_revoked_certificate(entry)
        .sign(ca.key, SHA256())
        .public_bytes(Encoding.PEM)
    )
    async with running(settings(tmp_path, ca, crl)) as harness:
        assert (await ask(harness, good))[0] == 200
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
            await ask(harness, revoked)


async def test_a_connection_that_outlives_its_certificate_opens_nothing_any_more(verifier, ca):
    pair = ca.issue("dashboard", DASHBOARD)
    ends = x509.load_pem_x509_certificate(pair[0].read_bytes()).not_valid_after_utc
    context = client_context(verifier.service.tls.ca, pair)
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(f"{verifier.secure_url}/v1/attesters", ssl=context) as reply:
            assert reply.status == 200
        verifier.clock.advance(seconds=(ends - verifier.clock.now()).total_seconds() + 1)
        async with session.get(f"{verifier.secure_url}/v1/attesters", ssl=context) as reply:
            assert reply.status == 401


async def test_dns_names_count_in_any_case_and_what_is_done_bears_the_name(verifier, ca, tmp_path):
    der = _certificate_with_dns(ca, "OPS.estate.test")
    assert read_client_certificate(der).names == {"dns:ops.estate.test"}
    record = verifier.service.services.callers.by_certificate(der)
    assert (record.id, record.tenant, {scope.value for scope in record.scopes}) == (
        "cert:dns:ops.estate.test",
        "default",
        {"operator"},
    )


def _certificate_with_dns(ca, name):
    builder = ca._builder(ca.key, "ops").add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
    )
    return builder.sign(ca.key, SHA256()).public_bytes(Encoding.DER)
