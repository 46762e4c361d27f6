"""What an OpenID Connect issuer publishes: its description and its keys, read over HTTPS and remembered.

OpenID Connect Discovery 1.0. Only the configured issuer and the https addresses it names are asked; redirects are not
followed, answers are bounded.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from verifier.errors import VerifierFault
from verifier.inventory.name_lookup import SystemResolver
from verifier.oidc.id_token import SigningKey, signing_keys
from verifier.ports import Clock
from verifier.ports_sign_in import ProviderFault

_FRESH: Final = timedelta(hours=1)
_KEYS_AGAIN: Final = timedelta(seconds=10)
"""Between two readings of the keys for the sake of one that is not among them."""
_MAX_REPLY: Final = 1024 * 1024
_AT_ONCE: Final = 8
T = TypeVar("T")


class Description(msgspec.Struct, frozen=True):
    """OpenID Provider Metadata, as far as it is used. An issuer where nobody signs in has no endpoints for it."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    code_challenge_methods_supported: tuple[str, ...] | None = None


class _Keys(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Published:
    """Description and keys, and when they were read."""

    description: Description
    keys: tuple[SigningKey, ...]
    read_at: datetime


class Issuer:
    """An issuer by its name. Opens nothing until it is asked. `setting`: where its CA certificates are configured."""

    def __init__(self, name: str, clock: Clock, *, ca: Path | None, timeout: timedelta, setting: str) -> None:
        self.name = name
        self._clock = clock
        self._timeout = timeout.total_seconds()
        self._tls = _tls(ca, setting)
        self._setting = setting
        self._known: Published | None = None
        self._reading = asyncio.Lock()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def published(self, *, key_unknown: bool = False) -> Published:
        """What it publishes, an hour old at most; `key_unknown`: read again, unless that was done just now.

        Raises:
            ProviderFault: it cannot be reached, or its description cannot be used.
        """
        older_than = _KEYS_AGAIN if key_unknown else _FRESH
        async with self._reading:
            known, now = self._known, self._clock.now()
            if known is None or not timedelta(0) <= now - known.read_at < older_than:
                description = await self._describe()
                _, body = await self.ask("GET", description.jwks_uri)
                keys = signing_keys(read(body, _Keys, "its keys").keys)
                known = self._known = Published(description, keys, now)
            return known

    async def _describe(self) -> Description:
        _, body = await self.ask("GET", f"{self.name.rstrip('/')}/.well-known/openid-configuration")
        found = read(body, Description, "its description")
        if found.issuer != self.name:
            raise ProviderFault(
                f"the sign-in provider calls itself {found.issuer[:200]!r}, and {self._setting}.issuer is {self.name!r}"
            )
        for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            if address and (not address.startswith("https://") or not address.isprintable()):
                raise ProviderFault(
                    f"the sign-in provider names {address[:200]!r}, which is no https address"
                )
        return found

    async def ask(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """One request. A GET is answered by 200 or not at all."""
        timeout = aiohttp.ClientTimeout(total=self._timeout)
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
            raise ProviderFault(f"the sign-in provider did not answer within {self._timeout:g} s") from error
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


def read(body: bytes, kind: type[T], what: str) -> T:
    """JSON of this type; raises `ProviderFault` where it is not."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProviderFault(f"the sign-in provider: {what} cannot be read: {error}") from error


def _tls(ca: Path | None, setting: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise VerifierFault(f"{setting}.ca: {ca} cannot be used: {error}") from error
    return context
