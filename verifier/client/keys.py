"""The verifier's published keys: fetched when needed, kept for their time, and asked for anew when a token names another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from verifier.client.errors import EarError, EarFault, ReplyError, UnavailableError
from verifier.client.transport import Reply

JWKS_PATH: Final = "/.well-known/jwks.json"
_NO_SOONER: Final = timedelta(seconds=10)
"""Whoever sends tokens with invented `kid`s shall not make the client ask the verifier more often than this."""
_SHORTEST, _LONGEST, _USUAL = timedelta(seconds=30), timedelta(hours=1), timedelta(minutes=5)
_MAX_KEYS: Final = 64


class Source(Protocol):
    """Where the key set comes from: the transport, over TLS."""

    async def get(self, path: str) -> Reply:
        """The reply with the JWK Set."""


class KeySet:
    """Keys by `kid`; only P-256 keys for ES256 are taken from the set.

    While the verifier cannot be reached, keys are believed for `outlive` beyond their time, and no longer: a key that was
    withdrawn must not be believed forever by who cannot hear of it.
    """

    def __init__(self, source: Source, now: Callable[[], datetime], outlive: timedelta) -> None:
        self._source = source
        self._now = now
        self._outlive = outlive
        self._keys: dict[str, ECKey] = {}
        self._fetched_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._good_until = now()
        self._lock = asyncio.Lock()

    async def key(self, kid: str) -> ECKey:
        """The key of that `kid`, as published now.

        Raises:
            EarError: `ear-key-unknown`.
            UnavailableError: the keys cannot be had.
        """
        async with self._lock:
            now = self._now()
            if now >= self._good_until or (kid not in self._keys and self._may_ask(now)):
                await self._fetch(now)
        if kid not in self._keys:
            raise EarError(EarFault.KEY, "the verifier publishes no key of this kid")
        return self._keys[kid]

    def _may_ask(self, now: datetime) -> bool:
        return self._tried_at is None or now - self._tried_at >= _NO_SOONER

    async def _fetch(self, now: datetime) -> None:
        if not self._may_ask(now):
            return self._believe_old(now, None)
        self._tried_at = now
        try:
            reply = await self._source.get(JWKS_PATH)
            keys = _read(reply)
        except (UnavailableError, ReplyError) as error:
            return self._believe_old(now, error)
        self._keys, self._fetched_at = keys, now
        self._good_until = now + _max_age(reply.headers.get("Cache-Control", ""))
        return None

    def _believe_old(self, now: datetime, error: Exception | None) -> None:
        if self._fetched_at is not None and now < self._good_until + self._outlive:
            return
        self._keys = {}
        raise UnavailableError("the verifier's keys cannot be fetched, so no EAR can be verified") from error


def _read(reply: Reply) -> dict[str, ECKey]:
    members = reply.decode(dict[str, Any]).get("keys")
    if not isinstance(members, list) or len(members) > _MAX_KEYS:
        raise ReplyError("the key set has no list of keys, or too many")
    keys: dict[str, ECKey] = {}
    for member in members:
        try:
            jwk = msgspec.convert(member, _Jwk)
            keys[jwk.kid] = ECKey.import_key(msgspec.to_builtins(jwk))
        except (msgspec.ValidationError, JoseError, ValueError):
            continue  # a key of another kind, for others: RFC 7517, section 5
    if not keys:
        raise ReplyError("the key set has no P-256 key for ES256")
    return keys


class _Jwk(msgspec.Struct, frozen=True, omit_defaults=False):
    """The members that are used; a private part would be dropped here."""

    kid: str
    x: str
    y: str
    kty: str
    crv: str
    alg: str = "ES256"
    use: str = "sig"

    def __post_init__(self) -> None:
        if (self.kty, self.crv, self.alg, self.use) != ("EC", "P-256", "ES256", "sig"):
            raise ValueError("not a P-256 key for ES256 signatures")


def _max_age(cache_control: str) -> timedelta:
    found = re.search(r"max-age=(\d{1,9})", cache_control)
    return min(max(timedelta(seconds=int(found[1])), _SHORTEST), _LONGEST) if found else _USUAL
