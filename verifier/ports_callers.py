"""Callers of the API who are known otherwise than by a token of ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from verifier.ports import Scope
from verifier.ports_sign_in import Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Who carries a token, and when it ends."""

    person: Person
    expires_at: datetime


class BearerProvider(Protocol):
    """An issuer whose bearer tokens are taken."""

    async def identify(self, token: str) -> Bearer:
        """Who carries this token.

        Raises:
            SignInRefused: it is not the issuer's, not for this verifier, or over.
            ProviderFault: the issuer's keys cannot be had.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a role, or a name in a client certificate, may do, and in which tenant."""

    scopes: frozenset[Scope]
    tenant: str
