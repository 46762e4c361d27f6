"""What an appraisal gives out. Pure data."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from verifier.appraisal.place import Place
from verifier.claims import ProvenClaims
from verifier.findings import Finding, Severity, Status
from verifier.reasons import Claim, Tier

__all__ = ["Appraisal", "Finding", "Severity", "Status"]


def tried_rule(policy_id: str, rule: str | None) -> str:
    """The `rule` of a finding of a policy that is tried beside the one that decides; `*` is no rule's id."""
    return f"{policy_id}/{rule or '*'}"


def tried_policy(finding: Finding) -> str | None:
    """Id of the policy that was tried, where `tried_rule` made the finding's rule; neither id holds a slash."""
    policy_id, slash, _ = (finding.rule or "").partition("/")
    return policy_id if slash else None


class Appraisal(Struct, frozen=True, kw_only=True):
    """The judgement of one attestation.

    Attributes:
        authenticated: the evidence is proven to come from the expected AK over the expected nonce. When
            False the sender may be anyone: a service refuses it and stores nothing.
        tier: overall status; never better than the worst claim.
        vector: AR4SI claim to value.
        claims: what was proven, or None where the quote itself was not.
    """

    authenticated: bool
    tier: Tier
    vector: Mapping[Claim, int]
    findings: tuple[Finding, ...]
    claims: ProvenClaims | None
    policy_id: str | None
    policy_revision: str | None
    place: Place | None = None
    """Where the evidence stands in the attester's history; None where the quote proved nothing, or where stored
    evidence is judged again."""
