"""Who calls the API: by a token of ours, a bearer token of an issuer, or a TLS client certificate.

Whoever is known in one of the other ways is given a record like that of a token, for the length of a call; it is stored
nowhere. Its id is what the audit log names: `oidc:<subject>` or `cert:<name>`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from verifier.crypto.client_certificate import read_client_certificate
from verifier.errors import RefusedError
from verifier.ports import Clock, TokenRecord
from verifier.ports_callers import BearerProvider, Grant
from verifier.reasons import Reason
from verifier.service.lru import BoundedLru
from verifier.service.tokens import TokenService

_REMEMBERED: Final = 4096
_ROOM: Final = 8 * 1024 * 1024
_WEIGHT: Final = 1024
_BEARER_LIFE: Final = timedelta(minutes=1)
"""How long a bearer token that was verified is believed before its signature is checked again."""


class Callers:
    """Finds out who calls. `bearer`, `certificates`: None where nobody is known in that way."""

    def __init__(
        self,
        tokens: TokenService,
        clock: Clock,
        bearer: tuple[BearerProvider, Mapping[str, Grant]] | None = None,
        certificates: Mapping[str, Grant] | None = None,
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._bearer = bearer
        self._certificates = certificates
        self._bearers: BoundedLru[bytes, tuple[datetime, TokenRecord]] = BoundedLru(_REMEMBERED, _ROOM)
        self._seen: BoundedLru[bytes, TokenRecord] = BoundedLru(_REMEMBERED, _ROOM)

    @property
    def knows_certificates(self) -> bool:
        """Whether a client certificate says anything."""
        return self._certificates is not None

    async def by_credential(self, text: str) -> TokenRecord:
        """Whose credential this is: an API token, or a JWT of the configured issuer.

        Raises:
            RefusedError: `unauthenticated`.
            ProviderFault: the issuer's keys cannot be had.
        """
        if self._bearer is None or text.count(".") != 2:  # noqa: PLR2004 - header, payload, signature
            return await self._tokens.authenticate(text)
        if not text.isascii():  # bytes of a header that are no text come as half characters
            raise RefusedError(Reason.UNAUTHENTICATED, "neither an API token nor a JWT")
        provider, roles = self._bearer
        digest, now = hashlib.sha256(text.encode()).digest(), self._clock.now()
        kept = self._bearers.get(digest)
        if kept is not None and timedelta(0) <= now - kept[0] < _BEARER_LIFE and _good(kept[1], now):
            return kept[1]
        bearer = await provider.identify(text)
        record = _record(
            f"oidc:{bearer.person.subject}",
            _granted(roles, bearer.person.roles),
            label=bearer.person.name,
            proof=digest,
            begins=now,
            ends=bearer.expires_at,
        )
        self._bearers.put(digest, (now, record), _WEIGHT)
        return record

    def remembers(self, text: str) -> bool:
        """Whether this credential was good when this process looked at it last, which it may do again."""
        if self._bearer is None or text.count(".") != 2:  # noqa: PLR2004 - as above
            return self._tokens.remembers(text)
        return self._bearers.get(hashlib.sha256(text.encode()).digest()) is not None

    def by_certificate(self, der: bytes) -> TokenRecord:
        """Whose client certificate this is. TLS has verified it already.

        Raises:
            RefusedError: `unauthenticated`, also once its time is over on a connection that stays open.
        """
        digest, now = hashlib.sha256(der).digest(), self._clock.now()
        record = self._seen.get(digest)
        if record is None:
            certificate = read_client_certificate(der)
            names = certificate.names & (self._certificates or {}).keys()
            record = _record(
                f"cert:{min(names, default='')}",
                _granted(self._certificates or {}, names),
                label=f"client certificate {certificate.fingerprint[:16]}",
                proof=digest,
                begins=now,
                ends=certificate.not_after,
            )
            self._seen.put(digest, record, _WEIGHT)
        if not _good(record, now):
            raise RefusedError(Reason.UNAUTHENTICATED, "the client certificate has expired")
        return record

    async def still(self, caller: TokenRecord) -> None:
        """Refuse who was let in before and would not be now: for calls that wait, and streams."""
        if ":" not in caller.id:
            await self._tokens.resume(caller.secret_hash)
        elif not _good(caller, self._clock.now()):
            raise RefusedError(Reason.UNAUTHENTICATED, "the credential has expired")


def _good(record: TokenRecord, now: datetime) -> bool:
    return record.expires_at is not None and now < record.expires_at


def _granted(grants: Mapping[str, Grant], roles: Iterable[str]) -> Grant:
    """All that these roles may do.

    Raises:
        RefusedError: nothing, or things in more than one tenant: which one is meant cannot be told.
    """
    found = [grants[role] for role in roles if role in grants]
    tenants = {grant.tenant for grant in found}
    if not found:
        raise RefusedError(
            Reason.UNAUTHENTICATED, "it is known who calls, and nothing is granted to that name or role"
        )
    if len(tenants) > 1:
        raise RefusedError(
            Reason.UNAUTHENTICATED, "the caller's names or roles are granted things in several tenants"
        )
    return Grant(scopes=frozenset().union(*(grant.scopes for grant in found)), tenant=tenants.pop())


def _record(
    name: str, grant: Grant, *, label: str, proof: bytes, begins: datetime, ends: datetime
) -> TokenRecord:
    return TokenRecord(
        id=name,
        tenant=grant.tenant,
        secret_hash=proof,
        scopes=grant.scopes,
        label=label,
        created_at=begins,
        expires_at=ends,
    )
