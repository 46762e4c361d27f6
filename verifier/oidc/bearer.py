"""Bearer tokens of an issuer: JWTs by which services, and people's tools, say who they are (RFC 9068, RFC 6750).

Proven: the issuer signed the token, for this verifier, and its time is not over. A token is good until it ends: the issuer
has no way to take it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import BadSignatureError, ExpiredTokenError

from verifier.oidc.id_token import ALGORITHMS, LEEWAY, UNREADABLE, SigningKey, UnknownKey, key_of
from verifier.oidc.issuer import Issuer
from verifier.oidc.provider import name_of, roles_of
from verifier.ports import Clock
from verifier.ports_callers import Bearer
from verifier.ports_sign_in import Person, SignInRefused

_MAX_TOKEN: Final = 8 * 1024
_MAX_SUBJECT: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerRules:
    """Which tokens are taken. `role_claim`: the claim with the caller's roles; with dots, through objects."""

    issuer: str
    audience: str
    role_claim: str
    timeout: timedelta
    ca: Path | None = None


class BearerTokens:
    """`verifier.ports_callers.BearerProvider`. Opens nothing until a token comes."""

    def __init__(self, rules: BearerRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._issuer = Issuer(rules.issuer, clock, ca=rules.ca, timeout=rules.timeout, setting="bearer")

    async def identify(self, token: str) -> Bearer:
        """Who the issuer says its bearer is; see the port."""
        if len(token) > _MAX_TOKEN:
            raise SignInRefused("this bearer token is too long")
        known = await self._issuer.published()
        try:
            claims = self._verified(token, known.keys)
        except UnknownKey:
            claims = self._verified(token, (await self._issuer.published(key_unknown=True)).keys)
        return Bearer(
            person=Person(
                issuer=self._rules.issuer,
                subject=claims["sub"],
                name=name_of(claims),
                roles=frozenset(roles_of(claims, self._rules.role_claim)),
            ),
            expires_at=_ends(claims["exp"]),
        )

    def _verified(self, token: str, keys: Iterable[SigningKey]) -> Mapping[str, Any]:
        published = tuple(keys)
        try:
            decoded = jwt.decode(token, lambda guest: key_of(guest, published), algorithms=list(ALGORITHMS))
            registry = jwt.JWTClaimsRegistry(
                now=int(self._clock.now().timestamp()),
                leeway=LEEWAY,
                iss={"essential": True, "value": self._rules.issuer},
                aud={"essential": True, "value": self._rules.audience},
                exp={"essential": True},
                sub={"essential": True},
            )
            registry.validate(decoded.claims)
        except SignInRefused:
            raise
        except UNREADABLE as error:
            raise SignInRefused(_said(error)) from error
        subject = decoded.claims["sub"]
        if not isinstance(subject, str) or len(subject) > _MAX_SUBJECT or not subject.isprintable():
            raise SignInRefused("this bearer token's subject cannot be used")
        return decoded.claims


def _ends(at: float) -> datetime:
    try:
        return datetime.fromtimestamp(at + LEEWAY, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise SignInRefused("this bearer token ends at a time that no clock shows") from error


def _said(error: Exception) -> str:
    """Nothing of the token is repeated."""
    match error:
        case ExpiredTokenError():
            return "this bearer token has expired"
        case BadSignatureError():
            return "the signature of this bearer token does not hold"
        case _:
            return "this bearer token is not one of the issuer's for this verifier"
