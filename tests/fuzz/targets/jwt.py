"""JWTs of an issuer, as bearer tokens and as ID tokens: only what the issuer signed gets through."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from joserfc import jwt as jose
from joserfc.jwk import ECKey

from tests.fuzz.targets import Bound
from tests.simulator.keys import private_key
from verifier.oidc import bearer, id_token
from verifier.oidc.issuer import Description, Published
from verifier.ports_sign_in import SignInRefused

RAISES = (SignInRefused,)
RUNS = 600
MEMORY = Bound(100, 1 << 20)
CALLS = Bound(100, 20_000)
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
KEY = ECKey.import_key(private_key("p256", "fuzz issuer"))
(PUBLIC,) = id_token.signing_keys([{**KEY.as_dict(private=False), "kid": "one", "use": "sig"}])
CLAIMS = {
    "iss": "https://issuer.test", "aud": "verifier", "sub": "someone", "exp": int(NOW.timestamp()) + 60,
    "iat": int(NOW.timestamp()), "nonce": "n", "roles": ["admin"],
}  # fmt: skip


class Clock:
    """The port."""

    def now(self) -> datetime:
        return NOW


class Issuer:
    """Of which the keys are known."""

    async def published(self, *, key_unknown: bool = False) -> Published:
        return Published(
            Description(issuer="https://issuer.test", jwks_uri="https://issuer.test/k"), (PUBLIC,), NOW
        )


RULES = bearer.BearerRules(
    issuer="https://issuer.test", audience="verifier", role_claim="roles", timeout=timedelta(seconds=1)
)
BEARER = bearer.BearerTokens(RULES, Clock())
BEARER._issuer = Issuer()  # type: ignore[assignment] - the one asks its keys over the network


def signed(**changes: object) -> bytes:
    header = {"alg": "ES256", "kid": "one", "typ": "at+jwt"}
    return jose.encode(header, CLAIMS | changes, KEY).encode()


def seeds() -> Iterator[bytes]:
    yield signed()
    yield from (
        signed(sub=1),
        signed(exp="never"),
        signed(exp=10**30),
        signed(aud=["verifier", 1]),
        signed(roles={"a": 1}),
    )

    for header in {
        b'{"alg":"none"}',
        b'{"alg":["ES256"],"kid":{}}',
        b'{"alg":"ES256","kid":"two"}',
        b"[" * 3000,
    }:
        yield base64.urlsafe_b64encode(header).rstrip(b"=") + b".e30.AAAA"


def target(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    refused: SignInRefused | None = None
    for look in (as_bearer, as_id_token):
        try:
            assert look(text) == "someone", "believed, and not what the issuer signed"
        except SignInRefused as error:
            refused = error
    if refused is not None:
        raise refused


def as_bearer(text: str) -> str:
    step = BEARER.identify(text)
    try:
        step.send(None)
    except StopIteration as done:
        return done.value.person.subject  # type: ignore[no-any-return] - of the coroutine
    raise AssertionError("nothing here waits")


def as_id_token(text: str) -> str:
    found = id_token.verify(
        text, (PUBLIC,), issuer="https://issuer.test", client_id="verifier", nonce="n", now=NOW
    )
    return str(found["sub"])
