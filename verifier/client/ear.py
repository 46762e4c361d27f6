"""EARs verified offline: signature, issuer, audience, times, nonce, profile (draft-ietf-rats-ear; RFC 8725 for JWTs)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.util import urlsafe_b64decode
from msgspec import Meta

from verifier.client.errors import EarError, EarFault
from verifier.client.keys import KeySet
from verifier.client.results import Ear, Lifecycle, PolicyRef, Standing, Tier

ALGORITHM: Final = "ES256"
"""The only one: what a token's header asks for chooses nothing."""
PROFILE: Final = "tag:ietf.org,2026:rats/ear#03"
WHOLE: Final = "vtpm"
MAX_TOKEN: Final = 16 * 1024
_TYPES: Final = frozenset({"eat+jwt", "application/eat+jwt"})
_TIERS: Final = {0: Tier.NONE, 2: Tier.AFFIRMING, 32: Tier.WARNING, 96: Tier.CONTRAINDICATED}
_Time = Annotated[int, Meta(ge=0, le=253_402_300_799)]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing else is accepted: no key (`jwk`, `x5c`), no place to get one from (`jku`, `x5u`), no `crit`."""

    alg: str
    kid: Annotated[str, Meta(min_length=1, max_length=128)]
    typ: str


class _Private(msgspec.Struct, frozen=True):
    lifecycle: Lifecycle
    sequence: int
    judged_at: _Time
    evidence_sha256: str
    reasons: tuple[str, ...]
    boot_id: str | None = None


class _Submodule(msgspec.Struct, frozen=True):
    ear_status: int
    ear_appraisal_policy_ids: tuple[str, ...] = ()
    vtpm_attest: _Private | None = None


class _Claims(msgspec.Struct, frozen=True):
    eat_profile: str
    iss: str
    sub: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
    iat: _Time
    exp: _Time
    submods: dict[str, _Submodule]
    aud: str | tuple[str, ...] | None = None
    nbf: _Time | None = None
    eat_nonce: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarRules:
    """What an EAR must say.

    Attributes:
        issuer: the verifier's public URL.
        audience: this relying party's name; None accepts only EARs that are for nobody in particular.
        leeway: by how much the verifier's clock may be ahead; an EAR's end is never stretched.
    """

    issuer: str
    audience: str | None
    leeway: timedelta = timedelta(seconds=60)


class EarVerifier:
    """Verifies EARs of one verifier with its published keys."""

    def __init__(self, keys: KeySet, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._now = now

    async def verify(self, token: str, rules: EarRules, *, nonce: str | None = None) -> Ear:
        """The token's content, believed.

        Proves: the verifier signed this, for this audience, and it has not ended. It does not prove who presents it (an EAR
        is a bearer token), nor, without a nonce, that it was signed just now; nor that the attester was not revoked since.

        Raises:
            EarError: it is not to be believed, and why.
            UnavailableError: the keys cannot be had.
        """
        header = _header(token)
        key = await self._keys.key(header.kid)
        try:
            payload = jws.deserialize_compact(token, key, algorithms=[ALGORITHM]).payload
        except (JoseError, ValueError) as error:
            raise EarError(EarFault.SIGNATURE, "the signature does not fit") from error
        claims = _claims(payload)
        _check(claims, rules, nonce, self._now())
        return _ear(claims, token)


def _header(token: str) -> _Header:
    """The protected header, held against what is allowed before any of it is used."""
    if len(token) > MAX_TOKEN or token.count(".") != 2 or not token.isascii():  # noqa: PLR2004 - three parts
        raise EarError(EarFault.UNREADABLE, f"not a compact JWS of at most {MAX_TOKEN} characters")
    try:
        raw = urlsafe_b64decode(token.partition(".")[0].encode())
        alg = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get("alg")
        if alg is None or msgspec.json.decode(alg) != ALGORITHM:
            raise EarError(EarFault.ALGORITHM, "its header asks for another algorithm than ES256")
        header = msgspec.json.decode(raw, type=_Header)
    except msgspec.ValidationError as error:
        raise EarError(EarFault.HEADER, f"its header is not one of this verifier's: {error}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise EarError(EarFault.UNREADABLE, "its header is not JSON in base64url") from error
    if header.typ not in _TYPES:
        raise EarError(EarFault.HEADER, "it is a token of another type")
    return header


def _claims(payload: bytes) -> _Claims:
    try:
        return msgspec.json.decode(payload, type=_Claims)
    except msgspec.ValidationError as error:
        raise EarError(
            EarFault.PROFILE, f"its claims are not those of an EAR of this profile: {error}"
        ) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise EarError(EarFault.UNREADABLE, "its claims are not JSON") from error


def _check(claims: _Claims, rules: EarRules, nonce: str | None, now: datetime) -> None:
    if claims.eat_profile != PROFILE:
        raise EarError(EarFault.PROFILE, "it is of another profile")
    if claims.iss != rules.issuer:
        raise EarError(EarFault.ISSUER, f"it was issued by another verifier than {rules.issuer}")
    audiences = (claims.aud,) if isinstance(claims.aud, str) else claims.aud or ()
    if rules.audience is None and audiences:
        raise EarError(EarFault.AUDIENCE, "it is for somebody else: no audience was expected")
    if rules.audience is not None and audiences != (rules.audience,):
        raise EarError(EarFault.AUDIENCE, f"it is not for {rules.audience} alone")
    if now.timestamp() >= claims.exp:
        raise EarError(EarFault.EXPIRED, "it has ended")
    begins = max(claims.iat, claims.nbf or 0)
    if begins > (now + rules.leeway).timestamp():
        raise EarError(EarFault.TIME, "it begins in the future")
    if nonce is not None and not hmac.compare_digest(nonce.encode(), (claims.eat_nonce or "").encode()):
        raise EarError(EarFault.NONCE, "it does not carry the nonce that was expected")


def _ear(claims: _Claims, token: str) -> Ear:
    whole = claims.submods.get(WHOLE)
    if whole is None or whole.vtpm_attest is None:
        raise EarError(EarFault.PROFILE, "it says nothing of the machine as a whole")
    tiers = {name: _tier(part.ear_status) for name, part in claims.submods.items()}
    said = whole.vtpm_attest
    return Ear(
        standing=Standing(
            attester_id=claims.sub,
            said=max(tiers.values(), key=lambda tier: tier.rank),
            lifecycle=said.lifecycle,
            policy=_policy(whole.ear_appraisal_policy_ids),
            judged_at=_time(said.judged_at),
            valid_until=_time(claims.exp),
            sequence=said.sequence,
            reasons=said.reasons,
        ),
        issued_at=_time(claims.iat),
        submodules=tiers,
        boot_id=said.boot_id,
        evidence_sha256=said.evidence_sha256,
        token=token,
    )


def _tier(status: int) -> Tier:
    if status not in _TIERS:
        raise EarError(EarFault.PROFILE, f"ear_status {status} is no tier")
    return _TIERS[status]


def _policy(ids: tuple[str, ...]) -> PolicyRef | None:
    """Of `<id>@sha256:<revision>`; several policies are none that a requirement could name."""
    if len(ids) != 1:
        return None
    name, _, revision = ids[0].partition("@sha256:")
    return PolicyRef(id=name, revision=revision)


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
