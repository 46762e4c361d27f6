"""Sessions of the dashboard: sealed cookies, so that any replica can read them and nobody can make or change one.

A session begins with an API token and ends with it: the cookie holds the SHA-256 of the token's secret, which opens nothing by
itself, and every request asks whether that token is still good.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from aiohttp import web

from verifier.errors import RefusedError
from verifier.ports import Random
from verifier.reasons import Reason

COOKIE: Final = "__Host-vtpm-attest"
"""The prefix makes browsers insist on Secure, Path=/ and no Domain (RFC 6265bis, section 4.1.3.2)."""
LIFETIME: Final = timedelta(hours=8)
_ID_SIZE: Final = 16
_TAG_SIZE: Final = 32
_MAX_COOKIE: Final = 512
_SAME_SITE: Final = frozenset({"same-origin", "none"})


class Session(msgspec.Struct, frozen=True):
    """Who looks at the dashboard."""

    id: bytes
    token_hash: bytes
    expires_at: int
    """Seconds since 1970."""


class Sessions:
    """Seals and opens sessions.

    Args:
        key: 32 bytes, shared by all replicas.
    """

    def __init__(self, key: bytes, random: Random) -> None:
        self._key = key
        self.random = random

    def begin(self, token_hash: bytes, now: datetime) -> str:
        """The cookie of a new session; its id is new, so that none can be fixed beforehand."""
        ends = int((now + LIFETIME).timestamp())
        return self.seal(
            b"session", msgspec.msgpack.encode(Session(self.random.bytes(_ID_SIZE), token_hash, ends))
        )

    def open(self, cookie: str, now: datetime) -> Session | None:
        """The session, or None for anything that was not sealed here or is over."""
        sealed = self.unseal(b"session", cookie, _MAX_COOKIE)
        if sealed is None:
            return None
        session = msgspec.msgpack.decode(sealed, type=Session)
        return session if datetime.fromtimestamp(session.expires_at, UTC) > now else None

    def seal(self, purpose: bytes, content: bytes) -> str:
        """Content that can be read but not made or changed by whoever holds it; it is good for `purpose` alone."""
        return base64.urlsafe_b64encode(content + self._tag(purpose, content)).rstrip(b"=").decode()

    def unseal(self, purpose: bytes, text: str, longest: int) -> bytes | None:
        """What was sealed for this purpose, or None."""
        if len(text) > longest:
            return None
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (ValueError, binascii.Error):
            return None
        sealed, tag = raw[:-_TAG_SIZE], raw[-_TAG_SIZE:]
        return sealed if hmac.compare_digest(tag, self._tag(purpose, sealed)) else None

    def csrf(self, session: Session) -> str:
        """What every form of this session carries."""
        return base64.urlsafe_b64encode(self._tag(b"csrf", session.id)).decode()

    def check_csrf(self, session: Session, given: str) -> None:
        """Raises `RefusedError` (`forbidden`) for a form that is not of this session."""
        if not hmac.compare_digest(given.encode(), self.csrf(session).encode()):
            raise RefusedError(Reason.FORBIDDEN, "this form is not of your session; open the page again")

    def _tag(self, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\0" + content, "sha256")


def check_same_origin(request: web.Request) -> None:
    """Raises `RefusedError` (`forbidden`) for a form sent by another site (Fetch Metadata; else the Origin header)."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        allowed = site in _SAME_SITE
    else:
        origin = request.headers.get("Origin")
        allowed = origin is None or origin.partition("://")[2] == request.host
    if not allowed:
        raise RefusedError(Reason.FORBIDDEN, "forms are accepted from the dashboard's own pages alone")


def set_cookie(response: web.StreamResponse, cookie: str) -> None:
    """Give the browser its session."""
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(LIFETIME.total_seconds()),
        path="/",
        secure=True,
        httponly=True,
        samesite="Lax",
    )


def drop_cookie(response: web.StreamResponse) -> None:
    """End the session in this browser."""
    response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Lax")
