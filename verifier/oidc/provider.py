"""An OpenID Connect provider over HTTPS: its description, its keys, and codes redeemed for who signed in.

Authorisation code with PKCE (RFC 6749, RFC 7636; RFC 9700 on how to use them).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from verifier.oidc.id_token import UnknownKey, verify
from verifier.oidc.issuer import Description, Issuer, Published, read
from verifier.ports import Clock
from verifier.ports_sign_in import Person, ProviderFault, SignInRefused

_MAX_NAME: Final = 100
_NAMES: Final = ("preferred_username", "email", "name")
_OURS: Final = frozenset(
    {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_request"}
)
"""Errors of the token endpoint (RFC 6749, section 5.2) that no new sign-in mends."""
_SERVER_ERROR: Final = 500


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""
    error_description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcRules:
    """How a provider is used.

    Attributes:
        secret: reads the client's secret, anew each time; None: a public client.
        role_claim: the claim with a person's roles; with dots, through objects (`realm_access.roles`).
        ca: PEM file with CA certificates that are trusted beside the system's.
    """

    issuer: str
    client_id: str
    secret: Callable[[], str] | None
    redirect: str
    scopes: tuple[str, ...]
    role_claim: str
    timeout: timedelta
    ca: Path | None = None


class OidcProvider:
    """`verifier.ports_sign_in.SignInProvider`. Opens nothing until somebody signs in."""

    def __init__(self, rules: OidcRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._issuer = Issuer(rules.issuer, clock, ca=rules.ca, timeout=rules.timeout, setting="oidc")

    async def address(self, *, state: str, nonce: str, challenge: str) -> str:
        """Where to send a browser; see the port."""
        rules, endpoint = self._rules, (await self._about()).description.authorization_endpoint
        query = urlencode(
            {
                "response_type": "code",
                "client_id": rules.client_id,
                "redirect_uri": rules.redirect,
                "scope": " ".join(rules.scopes),
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    async def person(self, *, code: str, verifier: str, nonce: str) -> Person:
        """Who came back with this code; see the port."""
        known = await self._about()
        token = await self._redeem(known.description, code, verifier)
        try:
            claims = self._verified(token, known, nonce)
        except UnknownKey:
            claims = self._verified(token, await self._about(key_unknown=True), nonce)
        return Person(
            issuer=self._rules.issuer,
            subject=claims["sub"],
            name=name_of(claims),
            roles=frozenset(roles_of(claims, self._rules.role_claim)),
        )

    def _verified(self, token: str, known: Published, nonce: str) -> dict[str, Any]:
        return verify(
            token,
            known.keys,
            issuer=self._rules.issuer,
            client_id=self._rules.client_id,
            nonce=nonce,
            now=self._clock.now(),
        )

    async def _about(self, *, key_unknown: bool = False) -> Published:
        """What the provider publishes, if people can sign in there."""
        known = await self._issuer.published(key_unknown=key_unknown)
        if not known.description.authorization_endpoint or not known.description.token_endpoint:
            raise ProviderFault("the sign-in provider does not say where people sign in")
        if "S256" not in (known.description.code_challenge_methods_supported or ("S256",)):
            raise ProviderFault("the sign-in provider does not support PKCE with S256")
        return known

    async def _redeem(self, description: Description, code: str, verifier: str) -> str:
        """The ID token for a code (RFC 6749, section 4.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._rules.redirect,
            "code_verifier": verifier,
        }
        headers = self._authenticate(description, form)
        status, body = await self._issuer.ask("POST", description.token_endpoint, form, headers)
        if status == 200:  # noqa: PLR2004 - OK
            return read(body, _Tokens, "its answer to a code").id_token
        try:
            refusal = msgspec.json.decode(body, type=_Refusal)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            refusal = _Refusal()
        if status >= _SERVER_ERROR or refusal.error in _OURS or not refusal.error:
            told = refusal.error or f"status {status}"
            raise ProviderFault(f"the sign-in provider does not serve this verifier ({told[:60]})")
        raise SignInRefused(
            f"the provider did not accept this sign-in ({refusal.error[:60]}): it may have been used already, or be"
            " too old; begin again"
        )

    def _authenticate(self, description: Description, form: dict[str, str]) -> dict[str, str]:
        """Say who we are: HTTP Basic where it is offered, else in the form (RFC 6749, section 2.3.1)."""
        rules = self._rules
        if rules.secret is None:
            form["client_id"] = rules.client_id
            return {}
        secret = rules.secret()
        if "client_secret_basic" in description.token_endpoint_auth_methods_supported:
            pair = f"{quote(rules.client_id, safe='')}:{quote(secret, safe='')}"
            return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        form |= {"client_id": rules.client_id, "client_secret": secret}
        return {}


def roles_of(claims: Mapping[str, Any], name: str) -> Iterable[str]:
    """The roles in the claim `name`: a text or a list of texts, by its whole name or through objects by its dots."""
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, str):
        return (found,)
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def name_of(claims: Mapping[str, Any]) -> str:
    """What to call somebody; the subject where nothing better is told."""
    for key in (*_NAMES, "sub"):
        told = claims.get(key)
        if isinstance(told, str) and told.strip():
            return "".join(char if char.isprintable() else " " for char in told).strip()[:_MAX_NAME]
    return ""


def secret_file(path: Path) -> Callable[[], str]:
    """Reads a secret from a file, anew each time, so that it can be rotated; one line break at its end is dropped."""

    def read() -> str:
        try:
            text = path.read_text().removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            # Whoever may see the sign-in page sees this: the setting, and not where its file is.
            raise ProviderFault("the file of the setting oidc.client_secret_file cannot be read") from error
        if not text:
            raise ProviderFault("the file of the setting oidc.client_secret_file is empty")
        return text

    return read
