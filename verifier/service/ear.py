"""EAT Attestation Results (draft-ietf-rats-ear) from stored verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from verifier.ports import TokenSigner
from verifier.service.model import VerdictView

PROFILE: Final = "tag:ietf.org,2026:rats/ear#03"
SUBMODULE: Final = "vtpm"
PRIVATE_CLAIM: Final = "vtpm_attest"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarIdentity:
    """Who issues: `ear_verifier_id` and the JWT's `iss`."""

    developer: str
    build: str
    issuer: str


class EarIssuer:
    """Signs EARs when somebody asks for one, never for every attestation."""

    def __init__(self, signer: TokenSigner, identity: EarIdentity) -> None:
        self._signer = signer
        self._identity = identity

    def issue(self, verdict: VerdictView, now: datetime, nonce: str | None = None) -> str:
        """A signed EAR (JWT, ES256) over what the verdict says now.

        It proves what this verifier concluded at `judged_at`, no more; `eat_nonce` proves only that it was
        signed after the relying party made that nonce, not that the evidence is newer than it.
        """
        return self._signer.sign(ear_claims(verdict, self._identity, now, nonce))

    def jwks(self) -> dict[str, object]:
        """The JWK Set to verify EARs with."""
        return dict(self._signer.jwks())


def ear_claims(
    verdict: VerdictView, identity: EarIdentity, now: datetime, nonce: str | None
) -> dict[str, object]:
    """Claims of one EAR; times are integers, statuses numbers. `iat` is the signing, `judged_at` the judging."""
    record = verdict.record
    appraisal: dict[str, object] = {
        "ear_status": verdict.tier.status,
        "ear_trustworthiness_vector": dict(verdict.vector),
        PRIVATE_CLAIM: {
            "lifecycle": verdict.lifecycle.value,
            "sequence": record.sequence,
            "judged_at": int(record.judged_at.timestamp()),
            "evidence_sha256": record.evidence_sha256.hex(),
            "boot_id": record.boot_id,
            "reasons": sorted({str(f["code"]) for f in verdict.findings if f["status"] != "passed"}),
        },
    }
    if record.policy_id is not None:
        appraisal["ear_appraisal_policy_ids"] = [f"{record.policy_id}@sha256:{record.policy_revision}"]
    claims: dict[str, object] = {
        "eat_profile": PROFILE,
        "iss": identity.issuer,
        "sub": record.attester_id,
        "iat": int(now.timestamp()),
        "exp": int(record.valid_until.timestamp()),
        "ear_verifier_id": {"developer": identity.developer, "build": identity.build},
        "submods": {SUBMODULE: appraisal},
    }
    if nonce is not None:
        claims["eat_nonce"] = nonce
    return claims
