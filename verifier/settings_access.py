"""`[bearer]` and `[client_certificates]` of the settings: callers of the API who need no token of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from verifier.durations import Duration
from verifier.ports import DEFAULT_TENANT, TENANT_NAME, Scope
from verifier.ports_callers import Grant
from verifier.settings_oidc import check_issuer
from verifier.settings_section import Section

_GIVEN: Final = tuple(scope for scope in Scope if scope is not Scope.JOIN)
_CERTIFICATE_NAME: Final = re.compile(r"(?:dns|uri|email):\S+")


class BearerSettings(Section, frozen=True):
    """JWTs of an issuer (OpenID Connect, a cluster's service accounts, SPIFFE) as credentials of the API."""

    issuer: str = ""
    """The issuer, as its tokens name it; empty: only tokens of this verifier are taken."""
    audience: str = ""
    """What a token's `aud` must name; no client of the same issuer may be called so."""
    role_claim: str = "roles"
    """Claim with the caller's roles; dots lead into objects. `sub` grants by name."""
    roles: tuple[str, ...] = ()
    """What roles may do: `role=scope`, in another tenant `role=scope@tenant`."""
    ca: Path | None = None
    """PEM file with CA certificates of the issuer, beside the system's."""
    timeout: Duration = Duration(seconds=10)
    """Of one request to the issuer."""


class ClientCertificateSettings(Section, frozen=True):
    """TLS client certificates as credentials of the API."""

    ca: Path | None = None
    """PEM file with the CA certificates above them; unset: none is asked for."""
    crl: Path | None = None
    """PEM file with their revocation lists; with it every issuer needs one that is current."""
    roles: tuple[str, ...] = ()
    """What names may do: `dns:NAME=scope`, `uri:URI=scope` or `email:ADDRESS=scope`, with `@tenant` as above."""


def grants(entries: Iterable[str]) -> dict[str, Grant]:
    """What each role may do, from `role=scope[@tenant]`; a role may be there several times, in one tenant.

    Raises:
        ValueError: not of that form, no scope of the API, or a role in two tenants.
    """
    found: dict[str, Grant] = {}
    for entry in entries:
        role, equals, right = (part.strip() for part in entry.rpartition("="))
        name, at, tenant = right.partition("@")
        scope = next((one for one in _GIVEN if one.value == name), None)
        if not equals or not role or scope is None or (at and not TENANT_NAME.fullmatch(tenant)):
            known = ", ".join(one.value for one in _GIVEN)
            raise ValueError(
                f"roles: {entry!r} is not role=scope or role=scope@tenant, with a scope of {known}"
            )
        grant = found.get(role, Grant(scopes=frozenset(), tenant=tenant or DEFAULT_TENANT))
        if grant.tenant != (tenant or DEFAULT_TENANT):
            raise ValueError(f"roles: {role!r} is given things in two tenants")
        found[role] = Grant(scopes=grant.scopes | {scope}, tenant=grant.tenant)
    return found


def certificate_grants(entries: Iterable[str]) -> dict[str, Grant]:
    """As `grants`, of names in certificates; DNS names in lower case."""
    found = grants(entries)
    for name in found:
        if not _CERTIFICATE_NAME.fullmatch(name):
            raise ValueError(f"roles: {name!r} is not dns:NAME, uri:URI or email:ADDRESS")
    return {name.lower() if name.startswith("dns:") else name: grant for name, grant in found.items()}


def check_bearer(settings: BearerSettings) -> None:
    """Refuse what could not work.

    Raises:
        ValueError: beginning with the key.
    """
    if not settings.issuer:
        if settings != BearerSettings():
            raise ValueError("issuer is not set, but others of [bearer] are")
        return
    check_issuer(settings.issuer)
    if not settings.audience:
        raise ValueError("audience is not set: tokens for anybody would be taken")
    if not grants(settings.roles):
        raise ValueError("roles is empty: nobody could do anything")


def check_client_certificates(settings: ClientCertificateSettings) -> None:
    """Refuse what could not work.

    Raises:
        ValueError: beginning with the key.
    """
    if settings.ca is None:
        if settings != ClientCertificateSettings():
            raise ValueError("ca is not set, but others of [client_certificates] are")
        return
    if not certificate_grants(settings.roles):
        raise ValueError("roles is empty: nobody could do anything")
