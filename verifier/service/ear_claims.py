"""The claims of an EAR, in the profiles that relying parties read.

Submodules: `vtpm` is the machine as a whole, as its TPM vouches for it: who looks at nothing else misses nothing. `boot` and
`runtime` are parts of it, for who wants to know which part it was; a part that nothing was judged of is not there.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from verifier.appraisal.vector import tier, vector
from verifier.findings import Finding
from verifier.ports import Lifecycle, VerdictRecord
from verifier.reasons import Claim, Reason, Tier
from verifier.service.model import VerdictView
from verifier.service.verdicts import read_finding

WHOLE: Final = "vtpm"
PRIVATE_CLAIM: Final = "vtpm_attest"


class Profile(enum.StrEnum):
    """Profiles of an EAR, by the value of `eat_profile`."""

    IETF = "tag:ietf.org,2026:rats/ear#03"
    """draft-ietf-rats-ear-03."""
    VERAISON = "tag:github.com,2023:veraison/ear"
    """draft-fv-rats-ear as Veraison and Trustee deployed it: dotted names, statuses as words."""


PROFILES: Final[Mapping[str, Profile]] = {
    "ietf": Profile.IETF,
    "veraison": Profile.VERAISON,
    **{profile.value: profile for profile in Profile},
}
"""What a relying party may ask for."""


class Part(enum.StrEnum):
    """Parts of a machine that are appraised by themselves."""

    BOOT = "boot"
    RUNTIME = "runtime"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarIdentity:
    """Who issues: `ear_verifier_id` and the JWT's `iss`."""

    developer: str
    build: str
    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submodule:
    """One entry of `submods`."""

    tier: Tier
    vector: Mapping[str, int]
    policy: str | None
    private: Mapping[str, object] | None = None


def ear_claims(
    verdict: VerdictView,
    identity: EarIdentity,
    now: datetime,
    nonce: str | None,
    *,
    audience: str | None = None,
    profile: Profile = Profile.IETF,
) -> dict[str, object]:
    """Claims of one EAR; times are integers. `iat` is the signing, `judged_at` the judging."""
    record = verdict.record
    claims: dict[str, object] = {
        "eat_profile": profile.value,
        "iss": identity.issuer,
        "sub": record.attester_id,
        "iat": int(now.timestamp()),
        "exp": int(record.valid_until.timestamp()),
        _VERIFIER_ID[profile]: {"developer": identity.developer, "build": identity.build},
        "submods": {name: _encode(part, profile) for name, part in submodules(verdict).items()},
    }
    if audience is not None:
        claims["aud"] = audience
    if nonce is not None:
        claims["eat_nonce"] = nonce
    return claims


def submodules(verdict: VerdictView) -> dict[str, Submodule]:
    """The whole, and every part that anything was judged of."""
    record = verdict.record
    policy = None if record.policy_id is None else f"{record.policy_id}@sha256:{record.policy_revision}"
    private = {
        "lifecycle": verdict.lifecycle.value,
        "sequence": record.sequence,
        "judged_at": int(record.judged_at.timestamp()),
        **_rejudged(record),
        "evidence_sha256": record.evidence_sha256.hex(),
        "boot_id": record.boot_id,
        "reasons": sorted({str(f["code"]) for f in verdict.findings if f["status"] != "passed"}),
    }
    found = {WHOLE: Submodule(tier=verdict.tier, vector=verdict.vector, policy=policy, private=private)}
    parts: dict[Part, list[Finding]] = {}
    for stored in verdict.findings:
        finding = read_finding(stored)
        part = part_of(finding)
        if part is not None:
            parts.setdefault(part, []).append(finding)
    for name in Part:
        if name in parts:
            found[name.value] = _part(verdict, parts[name], policy)
    return found


def _rejudged(record: VerdictRecord) -> dict[str, int]:
    at = record.rejudged_at
    return {} if at is None else {"rejudged_at": int(at.timestamp())}


def part_of(finding: Finding) -> Part | None:
    """Which part a finding speaks of; None: the TPM, its keys, its clock, or the machine's identity."""
    if finding.reason.value.startswith(_RUNTIME_CODES):
        return Part.RUNTIME
    if finding.claim is Claim.INSTANCE_IDENTITY or finding.reason in _OF_THE_QUOTE:
        return None
    return Part.BOOT


def _part(verdict: VerdictView, findings: list[Finding], policy: str | None) -> Submodule:
    """What is over for the whole (stale, revoked) is over for every part."""
    if verdict.lifecycle is not Lifecycle.ENROLLED:
        return Submodule(tier=verdict.tier, vector={}, policy=policy)
    values = {claim.value: value for claim, value in vector(findings).items()}
    return Submodule(tier=tier(findings), vector=values, policy=policy)


def _encode(part: Submodule, profile: Profile) -> dict[str, object]:
    match profile:
        case Profile.IETF:
            encoded: dict[str, object] = {
                "ear_status": part.tier.status,
                "ear_trustworthiness_vector": dict(part.vector),
            }
            if part.private is not None:
                encoded[PRIVATE_CLAIM] = dict(part.private)
            if part.policy is not None:
                encoded["ear_appraisal_policy_ids"] = [part.policy]
        case Profile.VERAISON:
            encoded = {"ear.status": part.tier.label, "ear.trustworthiness-vector": dict(part.vector)}
            if part.policy is not None:
                encoded["ear.appraisal-policy-id"] = part.policy
        case _:
            assert_never(profile)
    return encoded


_VERIFIER_ID: Final = {Profile.IETF: "ear_verifier_id", Profile.VERAISON: "ear.verifier-id"}
_RUNTIME_CODES: Final = "ima-"
_OF_THE_QUOTE: Final = frozenset(
    {
        Reason.QUOTE_MAGIC,
        Reason.QUOTE_TYPE,
        Reason.QUOTE_SIGNATURE,
        Reason.QUOTE_SIGNATURE_ALGORITHM,
        Reason.QUOTE_NONCE,
        Reason.QUOTE_PCR_SELECTION,
        Reason.QUOTE_PCR_DIGEST,
        Reason.QUOTE_VERIFIED,
        Reason.FRESHNESS_ASSUMED,
        Reason.AK_UNPROVEN,
        Reason.AK_TRUSTED,
        Reason.AK_ATTRIBUTES,
        Reason.FIRMWARE_CHANGED,
        Reason.CLOCK_UNSAFE,
    }
)
