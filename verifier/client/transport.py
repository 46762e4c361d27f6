"""One HTTPS connection pool to one verifier: bounded replies, typed errors, back-off that honours Retry-After."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec

from verifier.client.errors import UNAVAILABLE, RefusedError, ReplyError, UnavailableError

T = TypeVar("T")

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What msgspec raises over content that is not what was asked for."""
MAX_REPLY: Final = 16 * 1024 * 1024
_KEPT_REPLIES: Final = 2048
_PASSING: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Worth another attempt: everything the client asks may be asked twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often to try, and how long to wait between: from zero to `first`, doubled each time, at most `longest` seconds.

    A verifier that asks for more than `longest` by Retry-After is not waited for: the error says how long it asked for.
    """

    attempts: int = 4
    first: float = 0.25
    longest: float = 10.0

    def pause(self, attempt: int, asked: float | None) -> float | None:
        """Seconds before the attempt after `attempt` (from 0); None: give up."""
        if attempt + 1 >= self.attempts or (asked is not None and asked > self.longest):
            return None
        return max(self.drawn(attempt), asked or 0.0)

    def drawn(self, attempt: int) -> float:
        """A random part of the longest pause after `attempt`, so that many clients do not come back at once."""
        return random.uniform(0, min(self.longest, self.first * 2**attempt))  # noqa: S311 - spreads load, hides nothing


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply below 400, read whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    def decode(self, type_: type[T]) -> T:
        """The JSON body.

        Raises:
            ReplyError: it is another one.
        """
        try:
            return msgspec.json.decode(self.content, type=type_)
        except UNREADABLE as error:
            raise ReplyError(f"an answer that is no {type_.__name__}: {error}") from error


class _Problem(msgspec.Struct):
    """What is needed of an RFC 9457 problem document."""

    code: str
    title: str = ""
    detail: str = ""
    remedy: str = ""
    request_id: str | None = None


class Transport:
    """Asks one verifier; the token goes nowhere else, for redirects are not followed."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Path | ssl.SSLContext | None = None,
        retry: Retry | None = None,
        timeout: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(
                f"{url!r} is not an https:// address; without TLS anybody on the way could answer"
            )
        self.url = url.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._ssl = ca if isinstance(ca, ssl.SSLContext) else ssl.create_default_context(cafile=ca)
        self._retry = retry or Retry()
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._kept: OrderedDict[tuple[str, str], Reply] = OrderedDict()

    async def open(self) -> None:
        """Make the connection pool; nothing is asked yet."""
        self._session = aiohttp.ClientSession(headers=self._headers, cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        accept: str = "application/json",
        wait: int = 0,
    ) -> Reply:
        """GET; what was read before is asked for conditionally, and taken again where nothing changed (304).

        `wait`: for so many seconds the verifier shall hold back an answer that says nothing new.
        """
        address = path + _suffix(query)
        kept = self._kept.get((address, accept))
        headers = {"Accept": accept} | ({} if kept is None else {"If-None-Match": kept.headers["ETag"]})
        asked = path + _suffix({**(query or {}), "wait": wait}) if wait else address
        reply = await self.request("GET", asked, headers=headers, patience=wait)
        if kept is not None and reply.status == HTTPStatus.NOT_MODIFIED:
            self._kept.move_to_end((address, accept))
            return kept
        if "ETag" in reply.headers:
            self._kept[address, accept] = reply
            self._kept.move_to_end((address, accept))
            if len(self._kept) > _KEPT_REPLIES:
                self._kept.popitem(last=False)
        else:
            self._kept.pop((address, accept), None)
        return reply

    async def post(
        self,
        path: str,
        body: object,
        query: Mapping[str, str] | None = None,
        *,
        accept: str = "application/json",
    ) -> Reply:
        """POST of a question, as JSON; it changes nothing, so it may be asked twice."""
        headers = {"Accept": accept, "Content-Type": "application/json"}
        address = path + _suffix(query)
        return await self.request("POST", address, headers=headers, body=msgspec.json.encode(body))

    async def request(
        self,
        method: str,
        address: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        patience: float = 0.0,
    ) -> Reply:
        """Ask until there is an answer or no attempt left; `patience` seconds are added to the time an answer may take.

        Raises:
            RefusedError: 4xx, other than 429.
            UnavailableError: no answer, 5xx or 429 at the last attempt.
        """
        attempt = 0
        while True:
            try:
                return await self._once(method, address, headers, body, patience)
            except UnavailableError as error:
                pause = self._retry.pause(attempt, error.retry_after)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
            attempt += 1

    async def _once(
        self, method: str, address: str, headers: Mapping[str, str], body: bytes | None, patience: float
    ) -> Reply:
        limits = aiohttp.ClientTimeout(total=self._timeout + patience)
        async with self._sent(method, address, headers, body, limits) as reply:
            content = bytearray()
            async for part in reply.content.iter_any():
                content += part
                if len(content) > MAX_REPLY:
                    raise ReplyError(f"an answer of more than {MAX_REPLY} bytes")
            return self._checked(reply, bytes(content))

    @asynccontextmanager
    async def stream(
        self, address: str, headers: Mapping[str, str], silence: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """An endless reply; `UnavailableError` where nothing comes for `silence` seconds."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=silence)
        async with self._sent("GET", address, headers, None, limits) as reply:
            if reply.status != HTTPStatus.OK:
                self._checked(reply, await reply.content.read(MAX_REPLY))
                raise ReplyError(f"{reply.status} where a stream was asked for")
            yield reply.content

    @asynccontextmanager
    async def _sent(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str],
        body: bytes | None,
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("use the client as `async with AttestationClient(…) as client:`")
        try:
            async with self._session.request(
                method,
                self.url + address,
                headers=headers,
                data=body,
                ssl=self._ssl,
                allow_redirects=False,
                timeout=limits,
            ) as reply:
                yield reply
        except aiohttp.ClientConnectorCertificateError as error:
            raise UnavailableError(
                f"the certificate of {self.url} is not trusted: {error.certificate_error}",
                remedy="Pass the verifier's CA as `ca` (GET /v1/ca, or state folder, tls/ca.pem), compared by its fingerprint.",
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"no answer from {self.url}: {error or type(error).__name__}") from error

    def _checked(self, reply: aiohttp.ClientResponse, content: bytes) -> Reply:
        if reply.status < HTTPStatus.MULTIPLE_CHOICES or reply.status == HTTPStatus.NOT_MODIFIED:
            return Reply(reply.status, reply.headers.copy(), content)
        if reply.status < HTTPStatus.BAD_REQUEST:
            raise ReplyError(f"{self.url} redirects ({reply.status}); name the verifier itself")
        problem = _problem(content, reply.status)
        if reply.status in _PASSING:
            raise UnavailableError(
                problem.detail,
                code=problem.code,
                remedy=problem.remedy,
                retry_after=_seconds(reply.headers.get("Retry-After")),
            )
        raise RefusedError(
            reply.status, problem.code, problem.detail, problem.remedy, request_id=problem.request_id
        )


def _problem(content: bytes, status: int) -> _Problem:
    """The problem document; what answers without one (a proxy between) is described by its status."""
    try:
        problem = msgspec.json.decode(content, type=_Problem)
    except UNREADABLE:
        code = UNAVAILABLE if status in _PASSING else f"http-{status}"
        return _Problem(
            code,
            detail=f"answered {status} without a problem document",
            remedy="Look at what is between client and verifier.",
        )
    return msgspec.structs.replace(problem, detail=problem.detail or problem.title)


def _seconds(text: str | None) -> float | None:
    """Retry-After (RFC 9110, section 10.2.3): seconds, or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _suffix(query: Mapping[str, Any] | None) -> str:
    return f"?{urlencode(query)}" if query else ""
