"""What ends while the service runs: two hours go by at once for it (libfaketime), and everything that was made for one is over.

Nothing of it is an affirming verdict or a fault, what is good for longer goes on, and whatever is renewed counts at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from joserfc import jwt as issued_jwt

from agent.errors import AgentError
from agent.transport import Server, Transport, trusting
from agent.wire.messages import Challenge, ChallengeRequest
from tests import pki
from tests.client_certificates import ClientCa, client_context
from tests.eventually import eventually
from tests.faults.site import BIN, Site, site
from tests.faults.test_clock import Clock
from tests.faults.test_half_written_keys import Configured, pair
from tests.harness import Answer, FakeClock, Guest, Harness, b64
from tests.oidc_provider import Provider, provider_running
from verifier.crypto.keys import public_key
from verifier.ports import Scope
from verifier.tcg.public import parse_public

AUDIENCE = "https://verifier.test"
NAME = "urn:estate:dashboard"
SHORT, LONG, LATER = timedelta(hours=1), timedelta(hours=20), timedelta(hours=2)
LAB = pki.Ca.root("Expiring Lab")
BINARY = {"Content-Type": "application/octet-stream"}


def ends(after: timedelta) -> bytes:
    return pki.time(datetime.now(UTC) + after)


@dataclass
class Estate(Harness):
    """A client of one real verifier, whose clock it can turn."""

    site: Site = field(kw_only=True)
    hands: Clock = field(kw_only=True)
    clients: ClientCa = field(kw_only=True)
    provider: Provider = field(kw_only=True)

    async def token(self, scope: Scope, **_: Any) -> str:
        return await self.site.token(scope.value)

    def turn(self, ahead: timedelta) -> None:
        self.hands.turn(int(ahead.total_seconds()))

    async def command(self, *arguments: str) -> str:
        """Of the verifier's operator, at the time of now there."""
        done = await asyncio.create_subprocess_exec(
            BIN, *arguments, "--config", self.site.replicas[0].config,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, **self.site.replicas[0].environment},
        )  # fmt: skip
        out, _ = await done.communicate()
        assert done.returncode in {0, 2}  # 2: of a review that found some
        return out.decode()

    async def restart(self) -> None:
        (replica,) = self.site.replicas
        replica.signal(signal.SIGTERM)
        assert await replica.ended() == 0
        await replica.start()

    async def lost(self) -> list[str]:
        """Whom an enrolment of now would be refused."""
        named = json.loads(await self.command("anchors", "review", "--json"))
        return [one["attester_id"] for one in named]

    def certificate(self, name: str, lifetime: timedelta) -> ssl.SSLContext:
        self.clients.lifetime = lifetime
        return client_context(self.site.state / "tls" / "ca.pem", self.clients.issue(name, NAME))

    def bearer(self, ahead: timedelta, lifetime: timedelta) -> str:
        now = int((datetime.now(UTC) + ahead).timestamp())
        claims = {
            "iss": self.provider.issuer,
            "aud": AUDIENCE,
            "sub": "svc",
            "iat": now,
            "roles": ["readers"],
        }
        claims |= {"exp": now + int(lifetime.total_seconds())}
        key = self.provider.key
        return issued_jwt.encode(
            {"alg": key.get("alg"), "kid": key.kid}, claims, key, algorithms=[key.get("alg")]
        )

    async def trust(self, data: bytes, mode: str = "add") -> None:
        path = f"/v1/trust-anchors?set=lab&mode={mode}"
        answer = await self.call("POST", path, data=data, headers=BINARY, scope=Scope.OPERATOR)
        assert answer.status == 200, answer.content

    async def enroll(self, seed: int, middle: pki.Ca | None = None, **changes: Any) -> tuple[Guest, Answer]:
        """A machine whose EK the laboratory certified, or a CA below it that the machine brings."""
        guest = Guest.booted(self, seed)
        key = public_key(parse_public(guest.tpm.ek_public))
        body = guest.enrollment(
            await self.token(Scope.JOIN),
            ek_certificates=[b64((middle or LAB).ek(key, serial=100 + seed, **changes))],
            **(
                {} if middle is None else {"ek_chain": [b64(middle.der)]}
            ),  # an anchor among them does no harm
        )
        begun = await self.post("/v1/enrollments", body)
        if begun.status == 201:
            guest.attester_id = (await guest.activate(begun.json)).json["attester_id"]
        return guest, begun

    async def verdict(self, guest: Guest) -> Any:
        path = f"/v1/attesters/{guest.attester_id}/verdict"
        return (await self.call("GET", path, scope=Scope.RELYING_PARTY)).json


@asynccontextmanager
async def estate(directory: Path, *, listed: bool = False, extra: str = "") -> AsyncIterator[Estate]:
    """`listed`: client certificates need a revocation list that is not overdue; it is good for an hour.
    `extra` is TOML for the settings.
    """
    hands = Clock(directory)
    clients = ClientCa(directory / "clients")
    crl = f'crl = "{clients.revoke(SHORT)}"' if listed else ""
    (issuer := directory / "issuer").mkdir()
    async with provider_running(issuer) as provider:
        more = f"""
            [client_certificates]
            ca = "{clients.path}"
            roles = ["uri:{NAME}=dashboard"]
            {crl}
            [bearer]
            issuer = "{provider.issuer}"
            audience = "{AUDIENCE}"
            roles = ["readers=relying-party"]
            ca = "{provider.tls.ca}"
            {extra}
        """
        async with site(directory, more=more, environment=hands.environment) as made:
            connector = aiohttp.TCPConnector(ssl=made.tls())
            async with aiohttp.ClientSession(connector=connector) as session:
                yield Estate(
                    None, FakeClock(), made.replicas[0].url, session,  # type: ignore[arg-type]
                    site=made, hands=hands, clients=clients, provider=provider,
                )  # fmt: skip
            assert "Traceback" not in made.log


async def asked(session: aiohttp.ClientSession, url: str, **options: Any) -> int:
    async with session.get(f"{url}/v1/attesters", **options) as reply:
        await reply.read()
        return reply.status


@pytest.mark.slow
async def test_credentials_of_callers(tmp_path):
    async with estate(tmp_path) as verifier:
        short = verifier.certificate("short", SHORT)
        jwt_short = verifier.bearer(timedelta(0), SHORT)
        token = json.loads(
            await verifier.command("tokens", "create", "--scope", "dashboard", "--expires", "1h", "--json")
        )["token"]
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector) as kept:
            assert await asked(kept, verifier.url, ssl=short) == 200
            assert (await verifier.call("GET", "/v1/verdicts?limit=1", token=jwt_short)).status == 200
            assert (await verifier.call("GET", "/v1/attesters", token=token)).status == 200
            verifier.turn(LATER)
            assert await asked(kept, verifier.url, ssl=short) == 401, "a connection does not outlive it"
        async with aiohttp.ClientSession() as fresh:
            with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
                await asked(fresh, verifier.url, ssl=short)
            for path, secret in (("/v1/verdicts?limit=1", jwt_short), ("/v1/attesters", token)):
                answer = await verifier.call("GET", path, token=secret)
                assert (answer.status, answer.code) == (401, "unauthenticated"), path
            renewed = verifier.certificate("renewed", LONG)
            assert await asked(fresh, verifier.url, ssl=renewed) == 200
        jwt_new = verifier.bearer(LATER, SHORT)
        assert (await verifier.call("GET", "/v1/verdicts?limit=1", token=jwt_new)).status == 200
        new = json.loads(
            await verifier.command("tokens", "create", "--scope", "dashboard", "--expires", "1h", "--json")
        )
        assert (await verifier.call("GET", "/v1/attesters", token=new["token"])).status == 200


@pytest.mark.slow
async def test_the_revocation_list_of_callers(tmp_path):
    async with estate(tmp_path, listed=True) as verifier, aiohttp.ClientSession() as session:
        certificate = verifier.certificate("long", LONG)
        token = await verifier.token(Scope.DASHBOARD)
        assert await asked(session, verifier.url, ssl=certificate) == 200
        verifier.turn(LATER)
        async with aiohttp.ClientSession() as fresh:
            with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
                await asked(fresh, verifier.url, ssl=certificate)
        assert (await verifier.call("GET", "/v1/attesters", token=token)).status == 200, "tokens need no list"
        verifier.clients.revoke(LONG)
        verifier.site.replicas[0].signal(signal.SIGHUP)

        async def taken_up() -> bool:
            async with aiohttp.ClientSession() as fresh:
                try:
                    return await asked(fresh, verifier.url, ssl=certificate) == 200
                except (aiohttp.ClientError, ssl.SSLError, ConnectionError):
                    return False

        await eventually(taken_up)


@pytest.mark.slow
async def test_endorsements_of_machines(tmp_path):
    middle = LAB.below("Short Middle", not_after=ends(SHORT))
    async with estate(tmp_path) as verifier:
        overdue = pki.crl(LAB, next_update=datetime.now(UTC) + SHORT)
        await verifier.trust(pki.pem("CERTIFICATE", LAB.der) + pki.pem("X509 CRL", overdue), "replace")
        below, _ = await verifier.enroll(501, middle)
        own, _ = await verifier.enroll(502, not_after=ends(SHORT))
        plain, _ = await verifier.enroll(503)
        guests = (below, own, plain)
        for guest in guests:
            assert (await guest.attest()).json["verdict"]["status"] == "affirming"
        verifier.turn(LATER)
        for guest in guests:
            assert (await verifier.verdict(guest))["status"] == "none", "nothing is affirmed past its time"
        for seed, options in ((504, {"middle": middle}), (505, {"not_after": ends(SHORT)})):
            _, refused = await verifier.enroll(seed, **options)
            assert (refused.status, refused.code) == (403, "ek-certificate-expired")
        _, begun = await verifier.enroll(506)
        assert begun.status == 201, "of an overdue list nothing follows by itself"
        for guest in guests:
            assert (await guest.attest()).json["verdict"]["status"] == "affirming"
        # Whoever is enrolled under what ended is named, and the list that is overdue.
        metrics = (await verifier.get("/metrics")).content.decode()
        assert 'vtpm_attest_expiry_alarms{kind="crl",within_days="0"} 1.0' in metrics
        assert await verifier.lost() == [own.attester_id]
        # The CA's successor, in place.
        again = LAB.below("Short Middle", not_after=ends(LONG))
        _, begun = await verifier.enroll(504, again)
        assert begun.status == 201


@pytest.mark.slow
async def test_an_anchor(tmp_path):
    """One that settings name: it is read at every start, also at one after its end."""
    short = pki.Ca.root("Short Root", seed="short root", not_after=ends(SHORT))
    async with estate(tmp_path) as verifier:
        (tmp_path / "anchors" / "short.der").write_bytes(short.der)
        await verifier.restart()
        guest, _ = await verifier.enroll(601, short)
        assert (await guest.attest()).json["verdict"]["status"] == "affirming"
        verifier.turn(LATER)
        for restarted in (False, True):
            if restarted:
                await verifier.restart()
            assert (await verifier.verdict(guest))["status"] == ("affirming" if restarted else "none")
            assert (await guest.attest()).json["verdict"]["status"] == "affirming", (
                "a machine that is enrolled goes on"
            )
            _, refused = await verifier.enroll(602, short)
            assert (refused.status, refused.code) == (403, "ek-certificate-expired")
            assert await verifier.lost() == [guest.attester_id]
        longer = pki.Ca.root("Short Root", seed="short root", not_after=ends(LONG))
        await verifier.trust(longer.der)
        _, begun = await verifier.enroll(602, short)
        assert begun.status == 201, "an anchor that was renewed counts at once"
        assert await verifier.lost() == []


@pytest.mark.slow
async def test_the_key_that_signs_results(tmp_path):
    async with estate(tmp_path) as verifier:
        guest = await verifier.guest(701)

        async def ear() -> str:
            answer = await guest.attest(want_ear=True)
            assert answer.json["verdict"]["status"] == "affirming"
            return str(answer.json["ear"])

        async def published() -> dict[str, Any]:
            keys = (await verifier.call("GET", "/.well-known/jwks.json")).json["keys"]
            return {key["kid"]: jwt.PyJWK(key) for key in keys}

        old = await ear()
        first = jwt.get_unverified_header(old)["kid"]
        await verifier.command("keys", "rotate", "--overlap", "1h")
        new = await ear()
        second = jwt.get_unverified_header(new)["kid"]
        assert set(await published()) == {first, second}
        verifier.turn(LATER)
        keys = await published()
        assert set(keys) == {second}, "what the old key signed counts for nobody who reads the key set"
        later = await ear()
        told = jwt.decode(
            later, keys[second], algorithms=["ES256"], options={"verify_iat": False, "verify_nbf": False}
        )
        assert told["iss"]
        (replica,) = verifier.site.replicas
        replica.signal(signal.SIGHUP)
        await asyncio.sleep(1)
        assert jwt.get_unverified_header(await ear())["kid"] == second


@pytest.mark.slow
async def test_the_certificate_of_the_listener(tmp_path):
    """One that has ended at the start: the service runs and says it, agents do not connect and say why, the next one is taken up."""
    configured = Configured(tmp_path / "tls")
    ended = pair(tmp_path / "ended", configured.authority, datetime.now(UTC) - timedelta(days=100))
    good = configured.next()
    configured.put(ended)
    ca = (configured.authority / "ca.pem").read_text()
    async with site(tmp_path, more=configured.settings) as verifier:
        (replica,) = verifier.replicas
        await eventually(lambda: "expiry.ended" in replica.log())
        server = Server.parse(replica.url)

        def challenge() -> str:
            with Transport(server, trusting(ca)) as transport, pytest.raises(AgentError) as caught:
                transport.post("/v1/challenges", ChallengeRequest(attester_id="nobody"), Challenge)
            return f"{caught.value.code}: {caught.value}"

        said = await asyncio.to_thread(challenge)
        assert said.startswith("verifier-untrusted")
        assert "certificate has expired" in said
        configured.put(good)
        replica.signal(signal.SIGHUP)

        async def renewed() -> bool:
            return (await asyncio.to_thread(challenge)).startswith("not-found")

        await eventually(renewed)
