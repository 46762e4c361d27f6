"""What it costs to find out who calls, and how often: before anything else is done for a request."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from joserfc import jwt

from tests.bench.measure import Result, within
from tests.client_certificates import ClientCa
from tests.harness import FakeClock
from tests.oidc_provider import provider_running
from verifier.adapters import SystemClock
from verifier.oidc.bearer import BearerRules, BearerTokens
from verifier.ports import DEFAULT_TENANT, Scope, TokenRecord
from verifier.ports_callers import Grant
from verifier.service.callers import Callers
from verifier.service.rate import RateRules, Rates
from verifier.service.tokens import TokenService

_TEXT: Final = f"vta1.{'A' * 43}"
_URI: Final = "spiffe://estate/gateway"
_GRANT: Final = Grant(scopes=frozenset({Scope.DASHBOARD}), tenant=DEFAULT_TENANT)
_AUDIENCE: Final = "attest-api"


class _OneToken:
    """The part of the store that is asked for tokens."""

    def __init__(self, record: TokenRecord) -> None:
        self._record = record

    async def token_by_hash(self, _secret_hash: bytes) -> TokenRecord:
        return self._record


def _at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of work that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


def _sha256() -> Callable[[], object]:
    secret = bytes(32)
    return lambda: hashlib.sha256(secret).digest()


def _record() -> TokenRecord:
    return TokenRecord(
        id="tok-1",
        tenant=DEFAULT_TENANT,
        secret_hash=bytes(32),
        scopes=frozenset({Scope.DASHBOARD}),
        label="",
        created_at=SystemClock().now(),
        expires_at=None,
    )


def _rows(
    callers: Callers, token: str, issuer: BearerTokens, key: rsa.RSAPrivateKey, der: bytes
) -> list[Result]:
    head, _, signature = token.rpartition(".")
    raw = key.sign(head.encode(), padding.PKCS1v15(), hashes.SHA256())
    public = key.public_key()

    def verify() -> None:
        public.verify(raw, head.encode(), padding.PKCS1v15(), hashes.SHA256())

    assert signature
    sha = {"bare": _sha256(), "bare_name": "SHA-256 of 32 bytes"}
    return [
        within(
            "an API token, seen lately", lambda: _at_once(callers.by_credential(_TEXT)), budget_us=15, **sha
        ),
        within("a JWT, seen lately", lambda: _at_once(callers.by_credential(token)), budget_us=15, **sha),
        within("a client certificate, seen lately", lambda: callers.by_certificate(der), budget_us=15, **sha),
        within(
            "a JWT, RS256, at first",
            lambda: _at_once(issuer.identify(token)),
            budget_us=500,
            bare=verify,
            bare_name="RSA-2048 verify",
        ),
    ]


async def _issuer(folder: Path, clock: FakeClock) -> tuple[str, BearerTokens, rsa.RSAPrivateKey]:
    """A token of a real issuer, and what has its keys."""
    async with provider_running(folder, clock.now) as provider:
        now = int(clock.now().timestamp())
        claims = {
            "iss": provider.issuer,
            "aud": _AUDIENCE,
            "sub": "svc",
            "iat": now,
            "exp": now + 600,
            "roles": ["readers"],
        }
        header = {"alg": provider.key.get("alg"), "kid": provider.key.kid}
        token = jwt.encode(header, claims, provider.key, algorithms=[header["alg"]])
        rules = BearerRules(
            issuer=provider.issuer,
            audience=_AUDIENCE,
            role_claim="roles",
            timeout=timedelta(seconds=10),
            ca=provider.tls.ca,
        )
        issuer = BearerTokens(rules, clock)
        await issuer.identify(token)
        return token, issuer, provider.key.private_key


def callers() -> list[Result]:
    clock = FakeClock()
    with tempfile.TemporaryDirectory() as name:
        token, issuer, key = asyncio.run(_issuer(Path(name), clock))
        certificate, _ = ClientCa(Path(name) / "clients").issue("gateway", _URI)
        der = _der(certificate)
    tokens = TokenService(_OneToken(_record()), None, SystemClock(), None, None)  # type: ignore[arg-type]
    known = Callers(tokens, clock, (issuer, {"readers": _GRANT}), {f"uri:{_URI}": _GRANT})
    return _rows(known, token, issuer, key, der)


def _der(path: Path) -> bytes:
    import ssl

    return ssl.PEM_cert_to_DER_cert(path.read_text())


def rates() -> list[Result]:
    rules = RateRules(
        identity=1e9, tenant=1e9, address=1e9, refusals=1e9, attester=1e9, machines=1e9, burst=10
    )
    limits, caller, now = Rates(rules, SystemClock()), _record(), SystemClock().now()

    def call() -> None:
        limits.called_from("2001:db8:1:2::1")
        limits.called_by(caller)

    def attestation() -> None:
        limits.attests("att-3dvupgdq7r4xuhtayqkcxv27", DEFAULT_TENANT, now)
        limits.attested("att-3dvupgdq7r4xuhtayqkcxv27", DEFAULT_TENANT, now)

    bare = {"bare": _sha256(), "bare_name": "SHA-256 of 32 bytes"}
    return [
        within("rate limits of a call: address, identity, tenant", call, budget_us=10, **bare),
        within("rate limits of an attestation", attestation, budget_us=5, **bare),
    ]


BENCHES: Final[dict[str, Callable[[], list[Result]]]] = {"callers": callers, "rates": rates}
