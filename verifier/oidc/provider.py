"""An OpenID Connect provider over HTTPS: its description, its keys, and codes redeemed for who signed in.

OpenID Connect Discovery 1.0; authorisation code with PKCE (RFC 6749, RFC 7636; RFC 9700 on how to use them). Only the
configured issuer and the https addresses it names are asked; redirects are not followed, answers are bounded.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from verifier.errors import VerifierFault
from verifier.inventory.name_lookup import SystemResolver
from verifier.oidc.id_token import SigningKey, UnknownKey, signing_keys, verify
from verifier.ports import Clock
from verifier.ports_sign_in import Person, ProviderFault, SignInRefused

_FRESH: Final = timedelta(hours=1)
_KEYS_AGAIN: Final = timedelta(seconds=10)
"""Between two readings of the keys for the sake of one that is not among them."""
_MAX_REPLY: Final = 1024 * 1024
_MAX_NAME: Final = 100
_AT_ONCE: Final = 8
_NAMES: Final = ("preferred_username", "email", "name")
_OURS: Final = frozenset(
    {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_request"}
)
"""Errors of the token endpoint (RFC 6749, section 5.2) that no new sign-in mends."""
_SERVER_ERROR: Final = 500
T = TypeVar("T")


class _Description(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    code_challenge_methods_supported: tuple[str, ...] | None = None


class _Keys(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""
    error_description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcRules:
    """How a provider is used.

    Attributes:
        secret: reads the client's secret, anew each time; None: a public client.
        role_claim: the claim with a person's roles; with dots, through objects (`realm_access.roles`).
        ca: PEM file with CA certificates that are trusted beside the system's.
    """

    issuer: str
    client_id: str
    secret: Callable[[], str] | None
    redirect: str
    scopes: tuple[str, ...]
    role_claim: str
    timeout: timedelta
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    description: _Description
    keys: tuple[SigningKey, ...]
    read_at: datetime


class OidcProvider:
    """`verifier.ports_sign_in.SignInProvider`. Opens nothing until somebody signs in."""

    def __init__(self, rules: OidcRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._tls = _tls(rules.ca)
        self._known: _Known | None = None
        self._reading = asyncio.Lock()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def address(self, *, state: str, nonce: str, challenge: str) -> str:
        """Where to send a browser; see the port."""
        rules, endpoint = self._rules, (await self._about()).description.authorization_endpoint
        query = urlencode(
            {
                "response_type": "code",
                "client_id": rules.client_id,
                "redirect_uri": rules.redirect,
                "scope": " ".join(rules.scopes),
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    async def person(self, *, code: str, verifier: str, nonce: str) -> Person:
        """Who came back with this code; see the port."""
        known = await self._about()
        token = await self._redeem(known.description, code, verifier)
        try:
            claims = self._verified(token, known, nonce)
        except UnknownKey:
            claims = self._verified(token, await self._about(older_than=_KEYS_AGAIN), nonce)
        return Person(
            issuer=self._rules.issuer,
            subject=claims["sub"],
            name=_name(claims),
            roles=frozenset(roles_of(claims, self._rules.role_claim)),
        )

    def _verified(self, token: str, known: _Known, nonce: str) -> dict[str, Any]:
        return verify(
            token,
            known.keys,
            issuer=self._rules.issuer,
            client_id=self._rules.client_id,
            nonce=nonce,
            now=self._clock.now(),
        )

    async def _redeem(self, description: _Description, code: str, verifier: str) -> str:
        """The ID token for a code (RFC 6749, section 4.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._rules.redirect,
            "code_verifier": verifier,
        }
        headers = self._authenticate(description, form)
        status, body = await self._ask("POST", description.token_endpoint, form, headers)
        if status == 200:  # noqa: PLR2004 - OK
            return _read(body, _Tokens, "its answer to a code").id_token
        try:
            refusal = msgspec.json.decode(body, type=_Refusal)
        except msgspec.MsgspecError:
            refusal = _Refusal()
        if status >= _SERVER_ERROR or refusal.error in _OURS or not refusal.error:
            told = refusal.error or f"status {status}"
            raise ProviderFault(f"the sign-in provider does not serve this verifier ({told[:60]})")
        raise SignInRefused(
            f"the provider did not accept this sign-in ({refusal.error[:60]}): it may have been used already, or be"
            " too old; begin again"
        )

    def _authenticate(self, description: _Description, form: dict[str, str]) -> dict[str, str]:
        """Say who we are: HTTP Basic where it is offered, else in the form (RFC 6749, section 2.3.1)."""
        rules = self._rules
        if rules.secret is None:
            form["client_id"] = rules.client_id
            return {}
        secret = rules.secret()
        if "client_secret_basic" in description.token_endpoint_auth_methods_supported:
            pair = f"{quote(rules.client_id, safe='')}:{quote(secret, safe='')}"
            return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        form |= {"client_id": rules.client_id, "client_secret": secret}
        return {}

    async def _about(self, older_than: timedelta = _FRESH) -> _Known:
        """Description and keys, read again once they are older than that."""
        async with self._reading:
            known, now = self._known, self._clock.now()
            if known is None or not timedelta(0) <= now - known.read_at < older_than:
                description = await self._describe()
                _, body = await self._ask("GET", description.jwks_uri)
                keys = signing_keys(_read(body, _Keys, "its keys").keys)
                known = self._known = _Known(description, keys, now)
            return known

    async def _describe(self) -> _Description:
        issuer = self._rules.issuer
        _, body = await self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        found = _read(body, _Description, "its description")
        if found.issuer != issuer:
            raise ProviderFault(
                f"the sign-in provider calls itself {found.issuer[:200]!r}, and oidc.issuer is {issuer!r}"
            )
        for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            if not address.startswith("https://") or not address.isprintable():
                raise ProviderFault(
                    f"the sign-in provider names {address[:200]!r}, which is no https address"
                )
        if "S256" not in (found.code_challenge_methods_supported or ("S256",)):
            raise ProviderFault("the sign-in provider does not support PKCE with S256")
        return found

    async def _ask(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """One request. A GET is answered by 200 or not at all."""
        timeout = aiohttp.ClientTimeout(total=self._rules.timeout.total_seconds())
        connector = aiohttp.TCPConnector(ssl=self._tls, resolver=SystemResolver())
        try:
            async with (
                self._turns,
                aiohttp.ClientSession(
                    connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
                ) as session,
                session.request(
                    method,
                    url,
                    data=form,
                    headers={"Accept": "application/json", "User-Agent": "vtpm-attest", **(headers or {})},
                    allow_redirects=False,
                ) as reply,
            ):
                body = await _bounded(reply.content)
                status = reply.status
        except TimeoutError as error:
            raise ProviderFault(
                f"the sign-in provider did not answer within {self._rules.timeout.total_seconds():g} s"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ProviderFault(f"the sign-in provider cannot be reached: {error}") from error
        if method == "GET" and status != 200:  # noqa: PLR2004 - OK
            raise ProviderFault(f"the sign-in provider answers {status} at {url[:200]}")
        return status, body


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > _MAX_REPLY:
            raise ProviderFault("the sign-in provider's answer is too long")
    return bytes(body)


def _read(body: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProviderFault(f"the sign-in provider: {what} cannot be read: {error}") from error


def roles_of(claims: Mapping[str, Any], name: str) -> Iterable[str]:
    """The roles in the claim `name`: a text or a list of texts, by its whole name or through objects by its dots."""
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, str):
        return (found,)
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def _name(claims: Mapping[str, Any]) -> str:
    """What to call somebody; the subject where nothing better is told."""
    for key in (*_NAMES, "sub"):
        told = claims.get(key)
        if isinstance(told, str) and told.strip():
            return "".join(char if char.isprintable() else " " for char in told).strip()[:_MAX_NAME]
    return ""


def _tls(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise VerifierFault(f"oidc.ca: {ca} cannot be used: {error}") from error
    return context


def secret_file(path: Path) -> Callable[[], str]:
    """Reads a secret from a file, anew each time, so that it can be rotated; one line break at its end is dropped."""

    def read() -> str:
        try:
            text = path.read_text().removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            # Whoever may see the sign-in page sees this: the setting, and not where its file is.
            raise ProviderFault("the file of the setting oidc.client_secret_file cannot be read") from error
        if not text:
            raise ProviderFault("the file of the setting oidc.client_secret_file is empty")
        return text

    return read
