"""Issuer certificates over HTTP: bounded in size and time, never redirected, never from inside unless allowed."""

from __future__ import annotations

import ipaddress
import socket
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult

from verifier.crypto.aia import MAX_REPLY, is_public
from verifier.inventory.name_lookup import SystemResolver

_log: Final = structlog.get_logger("vtpm_attest.issuers")
_CHUNK: Final = 16 * 1024
_OK: Final = 200


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses alone. The connection is made to what was checked, so that a name
    which resolves differently a moment later gains nothing."""  # noqa: D205, D209 - one sentence

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of the public Internet; `OSError` where there are none."""
        found = await self._inner.resolve(host, port, family)
        public = [one for one in found if is_public(ipaddress.ip_address(one["host"].partition("%")[0]))]
        if not public:
            raise OSError(None, f"{host} has no public address")
        return public

    async def close(self) -> None:
        """Let go of the resolver behind."""
        await self._inner.close()


class HttpIssuers:
    """`verifier.ports_trust.IssuerSource` over aiohttp. Opens nothing until it is asked.

    Args:
        private: addresses that are not public may be asked.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private

    async def fetch(self, url: str, timeout: timedelta) -> bytes | None:  # noqa: ASYNC109 - see the port
        """The body of a plain 200 of at most `MAX_REPLY` bytes, or None; the log says why."""
        try:
            body = await self._get(url, timeout)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            _log.warning("issuer.not-fetched", url=url, problem=str(error) or type(error).__name__)
            return None
        _log.info("issuer.fetched", url=url, size=len(body))
        return body

    async def _get(self, url: str, timeout: timedelta) -> bytes:  # noqa: ASYNC109 - handed on
        self._refuse_inside(url)
        connector = aiohttp.TCPConnector(resolver=self._resolver(), use_dns_cache=False, limit=1)
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout.total_seconds()),
            trust_env=False,
            auto_decompress=False,
        )
        async with session, session.get(url, allow_redirects=False) as reply:
            if reply.status != _OK:
                raise ValueError(f"answered {reply.status}")
            body = bytearray()
            async for chunk in reply.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > MAX_REPLY:
                    raise ValueError(f"more than {MAX_REPLY} bytes")
            return bytes(body)

    def _refuse_inside(self, url: str) -> None:
        """An address written in the URL is connected to without asking any resolver."""
        host = urlsplit(url).hostname or ""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            if host.replace(".", "").isdigit():  # 0177.0.0.1 or 2130706433: connected to as they stand
                raise
            return
        if not self._private and not is_public(address):
            raise ValueError(f"{host} is not a public address")

    def _resolver(self) -> AbstractResolver:
        inner = SystemResolver()
        return inner if self._private else PublicResolver(inner)
