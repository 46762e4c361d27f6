"""Webhooks over HTTP: to public addresses alone unless allowed, connected to as they were checked, never redirected."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from verifier.crypto.aia import is_public
from verifier.errors import VerifierFault
from verifier.inventory.issuer_fetch import PublicResolver
from verifier.inventory.name_lookup import SystemResolver
from verifier.ports_events import Answer

MAX_URL: Final = 2048
_CONNECTIONS: Final = 64
_SUCCESS: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)


class HttpWebhooks:
    """`verifier.ports_events.WebhookSender` over aiohttp. Opens nothing until it sends.

    Args:
        timeout: of one request, from resolving the name to the head of the answer.
        allow_http: also without TLS.
        allow_private: also to addresses that are not public.
        ca: PEM file with CA certificates that are trusted beside the system's.
        resolver: for tests; the system's otherwise.
    """

    def __init__(
        self,
        *,
        timeout: timedelta,
        allow_http: bool,
        allow_private: bool,
        ca: Path | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout.total_seconds())
        self._allow_http = allow_http
        self._allow_private = allow_private
        self._tls = _tls(ca)
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    def refused(self, url: str) -> str | None:
        """Why this URL is not sent to. A name that resolves to private addresses is found out when it is sent to."""
        schemes = {"http", "https"} if self._allow_http else {"https"}
        if len(url) > MAX_URL or not url.isascii() or any(ord(char) <= ord(" ") for char in url):
            return f"a URL has at most {MAX_URL} printable ASCII characters"
        try:
            parsed = URL(url)
            host, _ = parsed.host, parsed.port
        except ValueError as error:
            return f"not a URL: {error}"
        if parsed.scheme not in schemes or not host:
            allowed = "https" if not self._allow_http else "http or https"
            return f"{url!r} is not an {allowed} URL; http needs the setting webhooks.allow_http"
        if parsed.user is not None or parsed.password is not None or parsed.fragment:
            return "a URL of a webhook has no user, password or fragment: its requests are signed"
        if not self._allow_private and _inside(host):
            return f"{host} is not a public address; to send there, set webhooks.allow_private"
        return None

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST. Delivered is what was answered by 2xx; the body of the answer is not read."""
        refused = self.refused(url)  # again: the settings may have changed since it was stored
        if refused is not None:
            return Answer(problem=refused)
        try:
            async with self._open().post(
                URL(url), data=body, headers=headers, allow_redirects=False
            ) as reply:
                status = reply.status
        except TimeoutError:
            return Answer(problem=f"no answer within {self._timeout.total:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(problem=str(error) or type(error).__name__)
        if status in _SUCCESS:
            return Answer(status=status)
        redirect = ", a redirect, which is not followed" if status in _REDIRECT else ""
        return Answer(status=status, problem=f"answered {status}{redirect}")

    async def close(self) -> None:
        """Close connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            inner = self._resolver or SystemResolver()
            resolver = inner if self._allow_private else PublicResolver(inner)
            connector = aiohttp.TCPConnector(
                resolver=resolver, use_dns_cache=False, limit=_CONNECTIONS, ssl=self._tls
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                trust_env=False,
                headers={"User-Agent": "vtpm-attest"},
            )
        return self._session


def _inside(host: str) -> bool:
    """Whether this is an address that is not public: such a host is connected to without asking any resolver."""
    try:
        return not is_public(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return False


def _tls(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise VerifierFault(f"webhooks.ca: {ca} cannot be used: {error}") from error
    return context
