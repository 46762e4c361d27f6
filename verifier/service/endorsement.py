"""On whose word an EK is taken to be a TPM's: the enrolment methods an operator configured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from verifier.claims import EndorsementFacts
from verifier.crypto.ek import TrustAnchors, ValidatedEk, validate_ek
from verifier.errors import EvidenceError, MalformedInputError, RefusedError
from verifier.ports import AttesterRecord
from verifier.reasons import Reason
from verifier.tcg.public import Public


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementRules:
    """What makes an EK acceptable. There is no way in that is not named here.

    Attributes:
        certificate: a path from the EK's certificate to one of `anchors`.
        tofu: an EK without such a path is trusted on first use.
    """

    certificate: bool
    tofu: bool
    anchors: TrustAnchors
    crls: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """How an EK came to be trusted, and what is shown of it."""

    method: str
    certificate: bytes | None
    issuer: str | None
    profile: Mapping[str, object]


def endorse(
    ek: Public, certificates: Sequence[bytes], chain: Sequence[bytes], rules: EndorsementRules, now: datetime
) -> Endorsement:
    """Decide whether the EK is trusted.

    Proves for `certificate` that a configured anchor vouches for exactly this key, at `now`. Proves nothing
    for `tofu`: any software can make up an EK, which is why an operator has to write that word.

    Raises:
        RefusedError: no certificate, or none of those offered holds; of several reasons, one about a
            certificate of this very key is given rather than `ek-certificate-key-mismatch`.
    """
    if not rules.certificate:
        return _first_use("no certificate is asked for")
    problem: EvidenceError = RefusedError(
        Reason.EK_CERTIFICATE_MISSING, "the TPM offers no EK certificate, and enrolment asks for one"
    )
    for number, certificate in enumerate(certificates):
        outcome = _validate(certificate, ek, chain, rules, now)
        if isinstance(outcome, ValidatedEk):
            return Endorsement(
                method="certificate",
                certificate=outcome.certificate,
                issuer=outcome.issuer,
                profile=outcome.profile.as_mapping(),
            )
        if number == 0 or problem.reason is Reason.EK_CERTIFICATE_KEY_MISMATCH:
            problem = outcome
    if rules.tofu and problem.reason is not Reason.EK_CERTIFICATE_REVOKED:
        return _first_use(problem.detail)
    raise problem


def endorsement_facts(attester: AttesterRecord) -> EndorsementFacts:
    """What a policy may read of an enrolled machine's EK; of one without a validated certificate only the method."""
    profile = attester.ek_profile
    virtual = profile.get("virtual")
    return EndorsementFacts(
        endorsed_by=attester.endorsed_by,
        issuer=attester.ek_issuer,
        manufacturer_id=_text(profile, "manufacturer_id"),
        manufacturer=_text(profile, "manufacturer"),
        model=_text(profile, "model"),
        version=_text(profile, "version"),
        virtual=virtual if isinstance(virtual, bool) else None,
    )


def _text(profile: Mapping[str, object], key: str) -> str | None:
    value = profile.get(key)
    return value if isinstance(value, str) else None


def _validate(
    certificate: bytes, ek: Public, chain: Sequence[bytes], rules: EndorsementRules, now: datetime
) -> ValidatedEk | EvidenceError:
    try:
        return validate_ek(
            certificate, intermediates=chain, anchors=rules.anchors, crls=rules.crls, ek_public=ek, now=now
        )
    except MalformedInputError as error:
        return MalformedInputError(
            error.structure, error.offset or 0, error.detail, reason=Reason.EK_CERTIFICATE_MALFORMED
        )
    except EvidenceError as error:
        return error


def _first_use(why: str) -> Endorsement:
    notes = [f"trusted on first use: {why}"]
    return Endorsement(method="tofu", certificate=None, issuer=None, profile={"notes": notes})
