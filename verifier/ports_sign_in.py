"""Sign-in of people at another service: what the dashboard asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from verifier.errors import RefusedError, VerifierFault
from verifier.ports import Scope
from verifier.reasons import Reason


class SignInRefused(RefusedError):  # noqa: N818 - as `RefusedError` is an error
    """This sign-in does not hold; the text says why, for the person who tried."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.UNAUTHENTICATED, detail)


class ProviderFault(VerifierFault):
    """The provider cannot be used, or does not keep to the protocol: nothing that whoever signs in can mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who the provider says somebody is. `subject` is theirs alone at `issuer`; `name` is for people to read."""

    issuer: str
    subject: str
    name: str
    roles: frozenset[str]


class SignInProvider(Protocol):
    """Where people prove who they are."""

    async def address(self, *, state: str, nonce: str, challenge: str) -> str:
        """Where to send a browser. `challenge`: SHA-256 of the code verifier, base64url (RFC 7636, section 4.2).

        Raises:
            ProviderFault: it cannot be reached, or its description cannot be used.
        """

    async def person(self, *, code: str, verifier: str, nonce: str) -> Person:
        """Who came back with this code.

        Raises:
            SignInRefused: the code or what it was redeemed for does not hold.
            ProviderFault: it cannot be reached, or refuses this verifier itself.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """Sign-in as it is configured. `scopes`: what each role may do; `name`: on the button; `issuer`: as it names itself."""

    provider: SignInProvider
    issuer: str
    name: str
    scopes: Mapping[str, frozenset[Scope]]

    def scopes_of(self, person: Person) -> frozenset[Scope]:
        """All that the person's roles may do."""
        return frozenset().union(*(self.scopes.get(role, frozenset()) for role in person.roles))
