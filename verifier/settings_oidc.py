"""`[oidc]` of the settings: where people sign in, and what their roles may do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from verifier.durations import Duration
from verifier.ports import Scope
from verifier.settings_section import Section

_GIVEN: Final = (Scope.DASHBOARD, Scope.OPERATOR, Scope.AUDITOR, Scope.ADMIN)


class OidcSettings(Section, frozen=True):
    """Sign-in of people to the dashboard through an OpenID Connect provider."""

    issuer: str = ""
    """The provider, as its tokens name it; empty: people sign in with API tokens alone."""
    client_id: str = ""
    """What the provider calls this verifier. Redirect URI there: `<public_url>/dashboard/oidc/return`."""
    client_secret_file: Path | None = None
    """File with the client's secret, read at each sign-in; unset: a public client, proven by PKCE alone."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    """Asked of the provider."""
    role_claim: str = "roles"
    """Claim of the ID token with a person's roles; dots lead into objects."""
    roles: tuple[str, ...] = ()
    """What roles may do: `role=scope`, with the scopes `dashboard`, `operator`, `auditor` and `admin`."""
    name: str = "single sign-on"
    """Of the provider, on the button."""
    ca: Path | None = None
    """PEM file with CA certificates of the provider, beside the system's."""
    timeout: Duration = Duration(seconds=10)
    """Of one request to the provider."""


def role_scopes(entries: Iterable[str]) -> dict[str, frozenset[Scope]]:
    """What each role may do, from `role=scope`; a role may be there several times.

    Raises:
        ValueError: not of that form, or no scope of people.
    """
    found: dict[str, frozenset[Scope]] = {}
    for entry in entries:
        role, equals, name = (part.strip() for part in entry.rpartition("="))
        scope = next((one for one in _GIVEN if one.value == name), None)
        if not equals or not role or scope is None:
            known = ", ".join(one.value for one in _GIVEN)
            raise ValueError(f"roles: {entry!r} is not role=scope, with a scope of {known}")
        found[role] = found.get(role, frozenset()) | {scope}
    return found


def check_issuer(issuer: str) -> None:
    """An issuer's name is where its description is asked for (OpenID Connect Discovery 1.0, section 3).

    Raises:
        ValueError: beginning with the key.
    """
    parts = urlsplit(issuer)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"issuer = {issuer!r} is not an https URL without query, fragment and user")


def check_oidc(settings: OidcSettings) -> None:
    """Refuse what could not work, or would not be what it looks like.

    Raises:
        ValueError: beginning with the key.
    """
    if not settings.issuer:
        if settings != OidcSettings():
            raise ValueError("issuer is not set, but others of [oidc] are")
        return
    check_issuer(settings.issuer)
    if not settings.client_id:
        raise ValueError("client_id is not set")
    if "openid" not in settings.scopes:
        raise ValueError("scopes lack 'openid', without which no ID token is issued")
    if not role_scopes(settings.roles):
        raise ValueError("roles is empty: nobody could use the dashboard")
