"""ID tokens (OpenID Connect Core 1.0, section 3.1.3.7): who signed in, where, for whom, and in answer to which request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ExpiredTokenError,
    InvalidClaimError,
    JoseError,
    MissingClaimError,
    UnsupportedAlgorithmError,
)
from joserfc.jwk import ECKey, GuestProtocol, OKPKey, RSAKey

from verifier.ports_sign_in import SignInRefused

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA",
)  # fmt: skip
"""Signatures alone: with a shared secret (HS256) whoever knows the public key, or the client's secret, could sign."""
LEEWAY: Final = 60
"""Seconds by which clocks may differ."""
_MAX_TOKEN: Final = 64 * 1024
UNREADABLE: Final = (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What reading a token raises: joserfc's own errors, and Python's over JSON that nobody honest writes."""
_MAX_SUBJECT: Final = 255
_KINDS: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
SigningKey = RSAKey | ECKey | OKPKey


class UnknownKey(SignInRefused):
    """The token names a key that is not among those given; the provider may have a new one."""


def signing_keys(document: Iterable[Mapping[str, Any]]) -> tuple[SigningKey, ...]:
    """The keys of a JWK Set that can verify signatures; those of other kinds and uses are passed over."""
    found: list[SigningKey] = []
    for each in document:
        kind = _KINDS.get(str(each.get("kty")))
        if kind is None or each.get("use", "sig") != "sig":
            continue
        try:
            found.append(kind.import_key(dict(each)))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return tuple(found)


def verify(
    token: str, keys: Iterable[SigningKey], *, issuer: str, client_id: str, nonce: str, now: datetime
) -> dict[str, Any]:
    """The claims of an ID token that is proven to be the issuer's, for this client, in answer to this request.

    Raises:
        SignInRefused: anything of it does not hold; the text says what. `UnknownKey`: its key is not among `keys`.
    """
    if len(token) > _MAX_TOKEN:
        raise SignInRefused("the provider's ID token is too long")
    keys = tuple(keys)
    try:
        decoded = jwt.decode(token, lambda guest: key_of(guest, keys), algorithms=list(ALGORITHMS))
        registry = jwt.JWTClaimsRegistry(
            now=int(now.timestamp()),
            leeway=LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        registry.validate(decoded.claims)
    except SignInRefused:
        raise
    except UNREADABLE as error:
        raise SignInRefused(_said(error)) from error
    _check_party(decoded.claims, client_id)
    return decoded.claims


def key_of(guest: GuestProtocol, keys: tuple[SigningKey, ...]) -> SigningKey:
    """The one key the token names, fit for its algorithm; without a name there must be no choice."""
    headers = guest.headers()
    algorithm, kid = headers.get("alg"), headers.get("kid")
    found = [key for key in keys if kid is None or key.kid == kid]
    if kid is not None and not found:
        raise UnknownKey("the ID token is signed by a key the provider does not publish")
    if len(found) != 1:
        raise SignInRefused("the ID token does not say which of the provider's keys signed it")
    if found[0].get("alg") not in (None, algorithm):
        raise SignInRefused("the ID token is signed by another algorithm than its key is for")
    return found[0]


def _check_party(claims: Mapping[str, Any], client_id: str) -> None:
    audience, party = claims["aud"], claims.get("azp")
    if (isinstance(audience, list) and len(audience) > 1 and party is None) or party not in (None, client_id):
        raise SignInRefused("the ID token was issued to another application")
    if len(claims["sub"]) > _MAX_SUBJECT:
        raise SignInRefused("the ID token's subject is too long")


_CLAIMS: Final = {
    "iss": "the ID token is of another issuer",
    "aud": "the ID token was issued for another application",
    "nonce": "the ID token does not answer this sign-in; begin again",
    "iat": "the ID token is dated in the future; compare the clocks of provider and verifier",
    "nbf": "the ID token does not hold yet; compare the clocks of provider and verifier",
}


def _said(error: Exception) -> str:
    """For people. Nothing of the token is repeated."""
    match error:
        case ExpiredTokenError():
            return "the ID token has expired; begin again, and compare the clocks of provider and verifier"
        case UnsupportedAlgorithmError():
            return "the ID token is signed in a way that is not accepted"
        case BadSignatureError():
            return "the signature of the ID token does not hold"
        case MissingClaimError():
            return f"the ID token lacks the claim {error.claim}"
        case InvalidClaimError():
            return _CLAIMS.get(str(error.claim), f"the ID token's claim {error.claim!r} does not hold")
        case _:
            return "the provider's ID token cannot be read"
