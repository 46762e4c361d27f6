"""A small OpenID Connect provider over HTTPS: people, codes with PKCE, ID tokens; and the ways in which one can be hostile or down.

It keeps to RFC 6749, RFC 7636 and OpenID Connect Core, and refuses what does not, so that a client that passes here is one.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import html
import json
import secrets
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from tests.vsphere_endpoint.tls import TlsFiles, make_tls

CLIENT = "attest-verifier"
SECRET = "s3cret/with:odd+characters"
Claims = dict[str, Any]


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@functools.cache
def rsa_key(kid: str = "first") -> RSAKey:
    return RSAKey.generate_key(2048, parameters={"kid": kid, "use": "sig", "alg": "RS256"})


def ec_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", parameters={"kid": kid, "use": "sig", "alg": "ES256"})


@dataclass
class Grant:
    """A code that was given out."""

    nonce: str
    challenge: str
    redirect: str
    used: bool = False


@dataclass
class Provider:
    """What it knows, and how it misbehaves."""

    tls: TlsFiles
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    issuer: str = ""
    secret: str | None = SECRET
    """None: a public client."""
    redirects: set[str] = field(default_factory=set)
    """Registered redirect URIs."""
    person: Claims = field(
        default_factory=lambda: {"sub": "4711", "preferred_username": "anna", "roles": ["attest-operators"]}
    )
    key: RSAKey | ECKey = field(default_factory=rsa_key)
    published: list[RSAKey | ECKey] = field(default_factory=list)
    """Beside `key`."""
    change: Callable[[Claims], None] = lambda claims: None
    """What an ID token says that it should not."""
    sign: Callable[[Provider, Claims], str] | None = None
    """How it is signed instead."""
    description: Claims = field(default_factory=dict)
    answers: dict[str, Callable[[], Any]] = field(default_factory=dict)
    """By path: what is answered instead, or how it hangs."""
    grants: dict[str, Grant] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Paths, in order."""

    def app(self) -> web.Application:
        @web.middleware
        async def misbehave(request: web.Request, handler: Any) -> web.StreamResponse:
            self.asked.append(request.path)
            if request.path in self.answers:
                answer = self.answers[request.path]()
                return await answer if asyncio.iscoroutine(answer) else answer
            return await handler(request)

        app = web.Application(middlewares=[misbehave])
        app.router.add_get("/realm/.well-known/openid-configuration", self.describe)
        app.router.add_get("/realm/keys", self.keys)
        app.router.add_get("/realm/authorize", self.authorize)
        app.router.add_post("/realm/authorize", self.approve)
        app.router.add_post("/realm/token", self.token)
        app.router.add_get("/favicon.ico", self.no_icon)
        return app

    async def no_icon(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def describe(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
            | self.description
        )

    async def keys(self, request: web.Request) -> web.Response:
        shown = [key.as_dict(private=False) for key in (self.key, *self.published)]
        # What a client has to pass over: a key of another kind, and one for encryption.
        odd = [{"kty": "oct", "k": "AAAA", "kid": self.key.kid}, {"kty": "X", "kid": "x"}]
        return web.json_response(
            {"keys": [*odd, *shown, rsa_key("enc").as_dict(private=False) | {"use": "enc"}]}
        )

    async def authorize(self, request: web.Request) -> web.Response:
        query = request.query
        wrong = [
            name
            for name, holds in {
                "response_type": query["response_type"] == "code",
                "client_id": query["client_id"] == CLIENT,
                "redirect_uri": query["redirect_uri"] in self.redirects,
                "scope": "openid" in query["scope"].split(),
                "code_challenge_method": query["code_challenge_method"] == "S256",
                "code_challenge": len(query["code_challenge"]) == 43,
                "nonce": len(query["nonce"]) >= 22,
                "state": len(query["state"]) >= 22,
            }.items()
            if not holds
        ]
        if wrong:
            return web.Response(status=400, text=f"wrong: {wrong}")
        fields = "".join(
            f'<input type="hidden" name="{html.escape(k)}" value="{html.escape(v)}">'
            for k, v in query.items()
        )
        text = (
            '<!doctype html><html lang="en"><title>Provider</title><h1>Provider</h1>'
            f'<form method="post">{fields}<button>Continue as anna</button></form>'
        )
        return web.Response(text=text, content_type="text/html")

    async def approve(self, request: web.Request) -> web.Response:
        form = await request.post()
        code = secrets.token_urlsafe(24)
        redirect = str(form["redirect_uri"])
        self.grants[code] = Grant(str(form["nonce"]), str(form["code_challenge"]), redirect)
        query = urlencode({"code": code, "state": str(form["state"]), "iss": self.issuer})
        return web.Response(status=303, headers={"Location": f"{redirect}?{query}"})

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if not self._authentic(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        grant = self.grants.get(str(form["code"]))
        verifier = str(form["code_verifier"])
        proven = grant is not None and hmac.compare_digest(
            b64url(hashlib.sha256(verifier.encode()).digest()), grant.challenge
        )
        if grant is None or grant.used or not proven or form["redirect_uri"] != grant.redirect:
            return web.json_response({"error": "invalid_grant", "error_description": "<b>no</b>"}, status=400)
        grant.used = True
        now = int(self.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": grant.nonce,
        } | self.person
        self.change(claims)
        signed = self.signed(claims) if self.sign is None else self.sign(self, claims)
        return web.json_response(
            {"access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": signed}
        )

    def _authentic(self, request: web.Request, form: Any) -> bool:
        if self.secret is None:
            return bool(form.get("client_id") == CLIENT and "Authorization" not in request.headers)
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            name, _, secret = base64.b64decode(text).decode().partition(":")
            return (unquote(name), unquote(secret)) == (CLIENT, self.secret)
        return bool(
            "client_secret_post" in self.description.get("token_endpoint_auth_methods_supported", ())
            and (form.get("client_id"), form.get("client_secret")) == (CLIENT, self.secret)
        )

    def signed(self, claims: Claims, key: RSAKey | ECKey | None = None) -> str:
        key = key or self.key
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        return jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, algorithms=[algorithm])


def unsigned(provider: Provider, claims: Claims) -> str:
    return ".".join([_part({"alg": "none", "kid": provider.key.kid}), _part(claims), ""])


def signed_with_the_public_key(provider: Provider, claims: Claims) -> str:
    """HS256 over what everybody knows: taken for good by a client that lets the token choose its algorithm."""
    pem = provider.key.raw_value.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hs256(provider, claims, pem)


def signed_with_the_client_s_secret(provider: Provider, claims: Claims) -> str:
    return hs256(provider, claims, SECRET.encode())


def signed_by_another_key_of_the_same_name(provider: Provider, claims: Claims) -> str:
    forged = RSAKey.generate_key(2048, parameters={"kid": provider.key.kid})
    return provider.signed(claims, forged)


def signed_by_a_key_that_is_not_published(provider: Provider, claims: Claims) -> str:
    return provider.signed(claims, rsa_key("unheard-of"))


def altered_afterwards(provider: Provider, claims: Claims) -> str:
    header, _, signature = provider.signed(claims).split(".")
    return ".".join([header, _part(claims | {"sub": "someone else"}), signature])


def no_token(provider: Provider, claims: Claims) -> str:
    return "neither.a.token"


def hs256(provider: Provider, claims: Claims, key: bytes) -> str:
    text = ".".join([_part({"alg": "HS256", "kid": provider.key.kid}), _part(claims)])
    return f"{text}.{b64url(hmac.digest(key, text.encode(), 'sha256'))}"


def _part(content: Claims) -> str:
    return b64url(json.dumps(content).encode())


@asynccontextmanager
async def provider_running(
    folder: Path, now: Callable[[], datetime] | None = None
) -> AsyncIterator[Provider]:
    """A provider on a free port of the loopback."""
    provider = Provider(make_tls(folder))
    provider.now = now or provider.now
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(provider.tls.chain, provider.tls.key)
    runner = web.AppRunner(provider.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    provider.issuer = f"https://127.0.0.1:{runner.addresses[0][1]}/realm"
    try:
        yield provider
    finally:
        await runner.cleanup()


@contextmanager
def provider_beside(folder: Path) -> Iterator[Provider]:
    """The same with an event loop of its own, beside tests that have none."""
    started: list[Provider] = []
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with provider_running(folder) as provider:
            started.append(provider)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
