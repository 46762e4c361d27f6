"""EAT Attestation Results (draft-ietf-rats-ear) from stored verdicts, signed when somebody asks for one."""

from __future__ import annotations

from datetime import datetime

from verifier.ports import TokenSigner
from verifier.service.ear_cbor import cwt_claims
from verifier.service.ear_claims import EarIdentity, Profile, ear_claims
from verifier.service.model import VerdictView


class EarIssuer:
    """Signs EARs for relying parties, never for every attestation."""

    def __init__(self, signer: TokenSigner, identity: EarIdentity) -> None:
        self._signer = signer
        self._identity = identity

    async def issue(
        self,
        verdict: VerdictView,
        now: datetime,
        nonce: str | None = None,
        *,
        audience: str | None = None,
        profile: Profile = Profile.IETF,
    ) -> str:
        """A signed EAR (JWT, ES256) over what the verdict says now.

        It proves what this verifier concluded at `judged_at`, no more; `eat_nonce` proves only that it was
        signed after the relying party made that nonce, not that the evidence is newer than it.
        """
        claims = ear_claims(verdict, self._identity, now, nonce, audience=audience, profile=profile)
        return await self._signer.sign_jwt(claims)

    async def issue_cwt(
        self, verdict: VerdictView, now: datetime, nonce: str | None = None, *, audience: str | None = None
    ) -> bytes:
        """The same as a CWT (COSE_Sign1, ES256), in the current profile."""
        claims = ear_claims(verdict, self._identity, now, nonce, audience=audience)
        return await self._signer.sign_cwt(cwt_claims(claims))

    def jwks(self) -> dict[str, object]:
        """The JWK Set to verify EARs with."""
        return dict(self._signer.jwks())
