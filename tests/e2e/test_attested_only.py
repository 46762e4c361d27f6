"""Only attested callers: a real service behind the middleware, a real verifier, real EARs, real TLS client certificates."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.client_certificates import ISSUER, ClientCa, client_context, uri_of
from tests.e2e.test_client import QUICK, answering, asking
from tests.harness import boot_log
from verifier.client import Retry, Tier
from verifier.client.aiohttp_gate import ADMITTED, attested_only
from verifier.client.callers import (
    ClientCertificate,
    ForwardedCertificate,
    Naming,
    PresentedEar,
    Proxies,
    ProxyHeader,
)
from verifier.client.gate import Gate, Verdicts
from verifier.client.requirement import Requirement
from verifier.ports import Scope

AUDIENCE = "payments"


@dataclass
class Service:
    """A running service that lets only attested callers in."""

    url: str
    session: aiohttp.ClientSession
    tls: ssl.SSLContext | None = None

    async def get(self, path="/", pair=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        context = self.tls if pair is None else pair
        async with self.session.get(self.url + path, headers=headers, ssl=context or True) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if reply.status != 200 else text, reply.headers

    async def refused(self, status, code, **options):
        got, problem, headers = await self.get(**options)
        assert (got, problem.get("code") if got != 200 else problem) == (status, code)
        assert headers["Content-Type"] == "application/problem+json"
        assert (problem["status"], headers["Cache-Control"]) == (status, "no-store")
        assert problem["detail"]
        assert problem["remedy"]
        assert (status == 401) == ("WWW-Authenticate" in headers)
        return problem


async def hello(request):
    admitted = request.get(ADMITTED)
    return web.Response(text="open" if admitted is None else f"hello {admitted.standing.attester_id}")


@asynccontextmanager
async def serving(gate, tls=None, client_tls=None):
    app = web.Application(middlewares=[attested_only(gate, open_paths=frozenset({"/health"}))])
    app.router.add_get("/{rest:.*}", hello)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    kind = "http" if tls is None else "https"
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            yield Service(f"{kind}://127.0.0.1:{runner.addresses[0][1]}", session, client_tls)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def ear_service(verifier, requirement=None, *, url=None, client=None, bearer=False, **options):
    async with asking(verifier, url, **(client or {})) as asked:
        memory = options.pop("verdicts", {"fresh_for": timedelta(seconds=15)})
        gate = Gate(
            asked,
            requirement or Requirement(),
            [PresentedEar(asked, AUDIENCE, bearer=bearer)],
            verdicts=Verdicts(asked, **memory),
            **options,
        )
        async with serving(gate) as service:
            yield service


async def ear_of(verifier, guest, audience=AUDIENCE):
    query = {} if audience is None else {"audience": audience}
    answer = await verifier.get(
        f"/v1/attesters/{guest.attester_id}/verdict",
        Scope.RELYING_PARTY,
        headers={"Accept": "application/eat+jwt"},
        params=query,
    )
    assert answer.status == 200, answer.content
    return answer.content.decode()


@pytest.fixture
async def guest(verifier):
    guest = await verifier.guest()
    await guest.attest()
    return guest


async def test_an_attested_caller_comes_in_and_nobody_else(verifier, guest):
    async with ear_service(verifier) as service:
        token = await ear_of(verifier, guest)
        status, text, _ = await service.get(Attestation_Result=token)
        assert (status, text) == (200, f"hello {guest.attester_id}")
        await service.refused(401, "attestation-required")
        await service.refused(401, "attestation-required", Authorization=f"Bearer {token}")
        assert (await service.get("/health"))[1] == "open"
        for path in ("/health/", "/HEALTH", "/health/../", "//health"):
            await service.refused(401, "attestation-required", path=path)


async def test_as_bearer_where_the_service_wants_it_so(verifier, guest):
    token = await ear_of(verifier, guest)
    async with ear_service(verifier, bearer=True) as service:
        assert (await service.get(Authorization=f"bearer {token}"))[0] == 200
        await service.refused(401, "attestation-invalid", Authorization="Bearer x")
        await service.refused(401, "attestation-required", Authorization="Basic eDp5")
        await service.refused(
            403, "attestation-ambiguous", Authorization=f"Bearer {token}", Attestation_Result=token
        )


async def test_forged_foreign_and_late_ears_are_refused_with_the_cause(verifier, guest):
    token = await ear_of(verifier, guest)
    head, body, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(token)["kid"]
    forger = ec.generate_private_key(ec.SECP256R1())
    headers = {"kid": kid, "typ": "eat+jwt"}
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(forger.public_key()))
    cases = {
        "ear-signature": [
            jwt.encode(claims, forger, algorithm="ES256", headers=headers),
            f"{head}.{jwt.encode(claims | {'sub': 'att-other'}, forger, algorithm='ES256').split('.')[1]}.{signature}",
        ],
        "ear-algorithm": [
            jwt.encode(claims, None, algorithm="none", headers=headers),
            jwt.encode(claims, "s" * 32, algorithm="HS256", headers=headers),
        ],
        "ear-header": [jwt.encode(claims, forger, algorithm="ES256", headers=headers | {"jwk": jwk})],
        "ear-key-unknown": [
            jwt.encode(claims, forger, algorithm="ES256", headers=headers | {"kid": injected})
            for injected in ("../../etc/passwd", "' or 1=1 --", f"{kid} ")
        ],
        "ear-audience": [await ear_of(verifier, guest, "another"), await ear_of(verifier, guest, None)],
        "ear-unreadable": ["x", f"{token}.x", f"{head}.{body}"],
    }
    async with ear_service(verifier) as service:
        for cause, tokens in cases.items():
            for presented in tokens:
                problem = await service.refused(401, "attestation-invalid", Attestation_Result=presented)
                assert problem["cause"] == cause
        verifier.clock.advance(minutes=10)
        problem = await service.refused(401, "attestation-invalid", Attestation_Result=token)
        assert problem["cause"] == "ear-expired"


async def test_the_ear_of_another_verifier_is_refused(verifier, guest):
    async with ear_service(verifier, client={"issuer": "https://another.test"}) as service:
        token = await ear_of(verifier, guest)
        problem = await service.refused(401, "attestation-invalid", Attestation_Result=token)
    assert problem["cause"] == "ear-issuer"


async def test_a_contraindicated_machine_learns_why(verifier):
    guest = await verifier.guest()
    guest.reboot(boot_log(secure=False))
    await guest.attest()
    async with ear_service(verifier) as service:
        problem = await service.refused(
            403, "attestation-tier", Attestation_Result=await ear_of(verifier, guest)
        )
    assert "secure-boot-off" in problem["reasons"]


@pytest.mark.parametrize("live", [True, False])
async def test_what_is_required_is_required(verifier, guest, live):
    for requirement, code in (
        (Requirement(policies=frozenset({"another"})), "attestation-policy"),
        (Requirement(max_age=timedelta(minutes=1)), "attestation-age"),
    ):
        verifier.clock.advance(seconds=61)
        async with ear_service(verifier, requirement, live=live) as service:
            await service.refused(403, code, Attestation_Result=await ear_of(verifier, guest))
    wanted = Requirement(
        policies=frozenset({"secure-boot"}), max_age=timedelta(minutes=5), min_tier=Tier.WARNING
    )
    async with ear_service(verifier, wanted, live=live) as service:
        assert (await service.get(Attestation_Result=await ear_of(verifier, guest)))[0] == 200
    for useless in (Tier.NONE, Tier.CONTRAINDICATED):
        with pytest.raises(ValueError, match="proved nothing"):
            Requirement(min_tier=useless)


async def test_a_revocation_counts_soon_even_for_an_ear_that_has_not_ended(verifier, guest):
    token = await ear_of(verifier, guest)
    async with ear_service(verifier) as service, ear_service(verifier, live=False) as passport:
        assert (await service.get(Attestation_Result=token))[0] == 200
        await verifier.post(f"/v1/attesters/{guest.attester_id}/revoke", {}, scope=Scope.OPERATOR)
        verifier.clock.advance(seconds=16)
        await service.refused(403, "attestation-tier", Attestation_Result=token)
        assert (await passport.get(Attestation_Result=token))[0] == 200, (
            "as documented: an EAR alone lasts until its end"
        )
        verifier.clock.advance(minutes=10)
        await passport.refused(401, "attestation-invalid", Attestation_Result=token)


@asynccontextmanager
async def flaky(verifier):
    """The verifier behind something that can be switched off; and how often it was asked for verdicts."""
    state = {"down": False, "asked": 0}

    async def relay(request):
        state["asked"] += request.path.endswith("/verdict")
        if state["down"]:
            return web.Response(status=503)
        headers = {
            name: request.headers[name] for name in ("Authorization", "Accept") if name in request.headers
        }
        async with verifier.session.get(verifier.url + request.path_qs, headers=headers) as reply:
            kept = {"Content-Type": reply.headers["Content-Type"]}
            return web.Response(status=reply.status, body=await reply.read(), headers=kept)

    async with answering(verifier, relay) as url:
        yield url, state


async def test_while_the_verifier_is_away_its_last_word_counts_for_a_while_and_then_nobody_comes_in(
    verifier, guest
):
    memory = {"fresh_for": timedelta(seconds=15), "outlive": timedelta(minutes=2)}
    other = await verifier.guest(2)
    await other.attest()
    token, unseen = await ear_of(verifier, guest), await ear_of(verifier, other)
    async with flaky(verifier) as (url, state), ear_service(verifier, url=url, verdicts=memory) as service:
        assert (await service.get(Attestation_Result=token))[0] == 200
        state["down"] = True
        await service.refused(503, "verifier-unavailable", Attestation_Result=unseen)
        verifier.clock.advance(seconds=60)
        assert (await service.get(Attestation_Result=token))[0] == 200
        verifier.clock.advance(seconds=80)
        await service.refused(503, "verifier-unavailable", Attestation_Result=token)
        state["down"] = False
        verifier.clock.advance(seconds=3)
        assert (await service.get(Attestation_Result=token))[0] == 200
        assert (await service.get(Attestation_Result=unseen))[0] == 200


async def test_the_last_word_never_outlives_the_verdict(verifier, guest):
    ca = ClientCa(verifier.service.settings.state_dir.parent / "clients")
    pair = ca.issue("guest", uri_of(guest.attester_id))
    memory = {"outlive": timedelta(days=1)}
    async with (
        flaky(verifier) as (url, state),
        certificate_service(verifier, ca, url=url, verdicts=memory) as service,
    ):
        shown = client_context(verifier.service.tls.ca, pair)
        assert (await service.get(pair=shown))[0] == 200
        state["down"] = True
        verifier.clock.advance(minutes=10)
        problem = await service.refused(403, "attestation-tier", pair=shown)
    assert "none" in problem["detail"]


async def test_many_callers_at_once_make_one_question(verifier, guest):
    token = await ear_of(verifier, guest)
    async with flaky(verifier) as (url, state), ear_service(verifier, url=url) as service:
        answers = await asyncio.gather(*(service.get(Attestation_Result=token) for _ in range(20)))
        assert [status for status, _, _ in answers] == [200] * 20
        assert state["asked"] == 1
        state["down"] = True
        verifier.clock.advance(minutes=6)
        answers = await asyncio.gather(*(service.get(Attestation_Result=token) for _ in range(20)))
        assert {status for status, _, _ in answers} == {503}
        assert state["asked"] == 1 + QUICK.attempts


async def test_a_service_whose_own_token_is_refused_lets_nobody_in(verifier, guest):
    options = {"token": "vta1.wrong", "retry": Retry(attempts=1)}
    async with ear_service(verifier, client=options) as service:
        problem = await service.refused(
            503, "verifier-unavailable", Attestation_Result=await ear_of(verifier, guest)
        )
        assert problem["cause"] == "unauthenticated"


@asynccontextmanager
async def certificate_service(verifier, ca, *, url=None, sources=(), verify=ssl.CERT_OPTIONAL, verdicts=None):
    context = verifier.service.tls.context()
    context.load_verify_locations(ca.path)
    context.verify_mode = verify
    async with asking(verifier, url) as client:
        found = [ClientCertificate(Naming(issuer=ISSUER)), *(source(client) for source in sources)]
        gate = Gate(client, Requirement(), found, verdicts=Verdicts(client, **(verdicts or {})))
        async with serving(gate, context, client_context(verifier.service.tls.ca)) as service:
            yield service


async def test_a_client_certificate_names_the_attester(verifier, guest, tmp_path):
    ca, stranger = ClientCa(tmp_path / "clients"), ClientCa(tmp_path / "strangers")

    def shown(authority, name, *uris):
        return client_context(verifier.service.tls.ca, authority.issue(name, *uris))

    good = uri_of(guest.attester_id)
    async with certificate_service(verifier, ca) as service:
        status, text, _ = await service.get(pair=shown(ca, "guest", good))
        assert (status, text) == (200, f"hello {guest.attester_id}")
        await service.refused(401, "attestation-required")
        for name, uris in (
            ("none", ()),
            ("elsewhere", (f"https://another.test/v1/attesters/{guest.attester_id}",)),
            ("two", (good, uri_of("att-other"))),
            ("deeper", (f"{good}/verdict",)),
            ("prefix", (f"https://verifier.test.evil/v1/attesters/{guest.attester_id}",)),
        ):
            await service.refused(401, "attestation-invalid", pair=shown(ca, name, *uris))
        await service.refused(403, "attester-unknown", pair=shown(ca, "unheard", uri_of("att-unheard")))
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await service.get(pair=shown(stranger, "forged", good))
    async with certificate_service(verifier, ca, verify=ssl.CERT_NONE) as service:
        await service.refused(401, "attestation-required", pair=shown(stranger, "unchecked", good))


async def test_a_certificate_binds_an_ear_to_its_key(verifier, guest, tmp_path):
    """A stolen EAR is of no use to who has another key."""
    ca, other = ClientCa(tmp_path / "clients"), await verifier.guest(2)
    await other.attest()
    token = await ear_of(verifier, guest)
    own, thief = (
        client_context(verifier.service.tls.ca, ca.issue(name, uri_of(machine.attester_id)))
        for name, machine in (("own", guest), ("thief", other))
    )
    async with certificate_service(verifier, ca, sources=[lambda c: PresentedEar(c, AUDIENCE)]) as service:
        assert (await service.get(pair=own, Attestation_Result=token))[0] == 200
        await service.refused(403, "attestation-ambiguous", pair=thief, Attestation_Result=token)


@asynccontextmanager
async def proxied_service(verifier, *addresses):
    proxies = Proxies(addresses)
    async with asking(verifier) as client:
        sources = [ProxyHeader(proxies), ForwardedCertificate(proxies, Naming(issuer=ISSUER))]
        async with serving(Gate(client, Requirement(), sources)) as service:
            yield service


async def test_a_proxy_s_word_counts_from_its_address_alone(verifier, guest):
    claimed = {"X_Attester_Id": guest.attester_id}
    async with proxied_service(verifier, "127.0.0.0/8") as service:
        assert (await service.get(**claimed))[0] == 200
        await service.refused(401, "attestation-required")
        await service.refused(401, "attestation-invalid", X_Attester_Id="../x")
    async with proxied_service(verifier, "10.0.0.0/8", "unix", "::1") as service:
        for extra in (
            {},
            {"X_Forwarded_For": "10.0.0.1"},
            {"Forwarded": "for=10.0.0.1"},
            {"X_Real_IP": "10.0.0.1"},
        ):
            await service.refused(401, "attestation-invalid", **claimed, **extra)


def escaped(pair):
    return quote(pair[0].read_text())


async def test_a_forwarded_certificate_counts_if_the_proxy_verified_it(verifier, guest, tmp_path):
    good = escaped(ClientCa(tmp_path / "clients").issue("guest", uri_of(guest.attester_id)))
    envoy = f'By=spiffe://x;Hash=00;Cert="{good}";URI=x'
    async with proxied_service(verifier, "127.0.0.1") as service:
        assert (await service.get(X_Client_Cert=good, X_Client_Verify="SUCCESS"))[0] == 200
        assert (await service.get(X_Forwarded_Client_Cert=envoy))[0] == 200
        for verified in ({}, {"X_Client_Verify": "NONE"}, {"X_Client_Verify": "FAILED:unable to verify"}):
            await service.refused(401, "attestation-invalid", X_Client_Cert=good, **verified)
        await service.refused(401, "attestation-invalid", X_Client_Cert="%00", X_Client_Verify="SUCCESS")
        for several in (f"{envoy},{envoy}", "Hash=00;URI=x"):
            await service.refused(403, "attestation-ambiguous", X_Forwarded_Client_Cert=several)
    async with proxied_service(verifier, "10.1.2.3") as service:
        await service.refused(401, "attestation-invalid", X_Client_Cert=good, X_Client_Verify="SUCCESS")
        await service.refused(401, "attestation-invalid", X_Forwarded_Client_Cert=envoy)


def test_a_pin_names_who_the_certificate_does_not(tmp_path):
    certificate, _ = ClientCa(tmp_path / "clients").issue("guest")
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    der = parsed.public_bytes(Encoding.DER)
    assert Naming(issuer=ISSUER).attester(der) is None
    assert Naming(issuer=ISSUER, pins={parsed.fingerprint(SHA256()).hex(): "att-1"}).attester(der) == "att-1"
