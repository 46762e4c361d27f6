"""From findings to an AR4SI trustworthiness vector (draft-ietf-rats-ar4si, section 2.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from verifier.appraisal.alike import of_these
from verifier.findings import Finding
from verifier.reasons import Claim, Reason, Tier

_AFFIRMING: Final = {Claim.EXECUTABLES: 3}
"""Executables of which those that booted were judged."""
_RUN_TIME_TOO: Final = 2
"""Those at run time as well: where an IMA list was judged and nothing in it was amiss."""
_WARNING: Final = {Claim.CONFIGURATION: 36, Claim.EXECUTABLES: 33}
_UNRECOGNIZED: Final = 97
_CRYPTO_FAILED: Final = 99
_CRYPTO_REASONS: Final = frozenset({Reason.QUOTE_SIGNATURE, Reason.QUOTE_NONCE, Reason.QUOTE_PCR_DIGEST})


def vector(findings: Iterable[Finding]) -> dict[Claim, int]:
    """The worst value of each claim that any finding speaks for; claims nobody spoke for are left out."""
    findings = tuple(findings)
    worst: dict[Claim, tuple[Tier, int]] = {}
    for finding in findings:
        tier = finding.tier
        candidate = (tier, _value(finding, tier))
        if finding.claim not in worst or candidate > worst[finding.claim]:
            worst[finding.claim] = candidate
    values = {claim: value for claim, (_, value) in worst.items()}
    if values.get(Claim.EXECUTABLES) == _AFFIRMING[Claim.EXECUTABLES] and any(
        finding.reason is Reason.IMA_FILES_KNOWN for finding in findings
    ):
        values[Claim.EXECUTABLES] = _RUN_TIME_TOO
    return values


def _value(finding: Finding, tier: Tier) -> int:
    if tier is Tier.AFFIRMING:
        return _AFFIRMING.get(finding.claim, 2)
    if tier is Tier.WARNING:
        return _WARNING.get(finding.claim, 32)
    if tier is Tier.NONE:
        return 0
    if finding.reason in _CRYPTO_REASONS:
        return _CRYPTO_FAILED
    if finding.reason == Reason.AK_ATTRIBUTES:
        return _UNRECOGNIZED
    return 96


def tier(findings: Iterable[Finding]) -> Tier:
    """The worst tier of all findings; without any finding nothing was judged."""
    return max((finding.tier for finding in findings), default=Tier.NONE)


def _summed(findings: tuple[Finding, ...]) -> tuple[Tier, Mapping[Claim, int]]:
    return tier(findings), MappingProxyType(vector(findings))


summed: Final = of_these(_summed)
"""Tier and vector of these findings."""
