"""Enrolment: bind an AK to an EK that is trusted, by credential activation.

TPM 2.0 Library Specification, Part 1, section 24. The secret that only this TPM can recover is not stored;
what is stored is the HMAC it must produce, which is worth nothing after this enrolment.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from verifier.appraisal.correlate import Correlation, GuestKeys
from verifier.crypto.credential import make_credential
from verifier.crypto.keys import LoadedKey, fingerprint, load_key
from verifier.errors import NotFoundError, RefusedError
from verifier.ports import (
    DEFAULT_TENANT,
    AttesterRecord,
    Clock,
    EnrollmentRecord,
    Lifecycle,
    Random,
    Store,
    TokenRecord,
    TokenSpend,
)
from verifier.reasons import Reason
from verifier.service.attempts import AttemptLimiter
from verifier.service.endorsement import Admission, Candidate, admit
from verifier.service.ids import new_id
from verifier.service.issuers import IssuerFinder
from verifier.service.methods import Method, Requirements
from verifier.service.model import EnrollmentChallenge, EnrollmentCommand
from verifier.service.recorder import Recorder
from verifier.service.tokens import TokenService, join_secret_hash, refuse_spend
from verifier.service.trust import TrustService
from verifier.tcg.public import ak_attribute_problems, ek_attribute_problems

PROOF_LABEL: Final = b"vtpm-attest activation v1"
_SECRET_BYTES: Final = 32

AskInventory = Callable[[GuestKeys], Awaitable[Correlation]]
"""What the inventories say of a key and the SMBIOS UUID that was claimed with it."""


def activation_proof(secret: bytes, enrollment_id: str, ak_name: bytes) -> bytes:
    """HMAC-SHA256 under the activated secret, over the label, the enrolment id (ASCII) and the AK's name."""
    return hmac.digest(secret, PROOF_LABEL + enrollment_id.encode() + ak_name, "sha256")


class EnrollmentService:
    """Begin and complete enrolments."""

    def __init__(  # noqa: PLR0913 - one collaborator each
        self,
        *,
        store: Store,
        recorder: Recorder,
        tokens: TokenService,
        clock: Clock,
        random: Random,
        trust: TrustService,
        requirements: Requirements,
        lifetime: timedelta,
        limiter: AttemptLimiter,
        issuers: IssuerFinder | None = None,
        inventory: AskInventory | None = None,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._tokens = tokens
        self._clock = clock
        self._random = random
        self._trust = trust
        self._requirements = requirements
        self._lifetime = lifetime
        self._limiter = limiter
        self._issuers = issuers
        self._inventory = inventory

    async def begin(self, command: EnrollmentCommand) -> EnrollmentChallenge:
        """Check everything that can be checked without the TPM, then challenge it.

        A use of the join token is spent here, last of all and atomically: a request that is refused costs
        none, and of N machines that race for the last use exactly one gets a challenge.

        Raises:
            RefusedError: token, certificates, inventory, EK or AK attributes; nothing is stored, no use is spent.
            MalformedInputError: a key that does not parse.
        """
        token_hash = None if command.join_token is None else join_secret_hash(command.join_token)
        token = None if token_hash is None else await self._tokens.check_join(token_hash)
        if token is None and (Method.TOKEN,) in self._requirements.every:
            raise RefusedError(Reason.JOIN_TOKEN_REQUIRED, "enrolment here needs a join token")
        ek, ak = _judge_keys(command)
        tenant = DEFAULT_TENANT if token is None else token.tenant
        admission = await self._admit(command, ek, ak, tenant, has_token=token is not None)
        token = await self._spend(token_hash)
        return await self._challenge(command, ek, ak, admission, token)

    async def _admit(
        self, command: EnrollmentCommand, ek: LoadedKey, ak: LoadedKey, tenant: str, *, has_token: bool
    ) -> Admission:
        """Gather what the requirements ask for, then judge. Nobody is asked for what no requirement names."""
        trusted = await self._trust.current(tenant)
        candidate = Candidate(
            ek=ek.public,
            ak=ak.public,
            ek_certificates=command.ek_certificates,
            ak_certificates=command.ak_certificates,
            device_certificates=command.device_certificates,
            issuers=command.ek_chain,
            token=has_token,
        )
        if self._inventory is not None and Method.INVENTORY in self._requirements:
            keys = GuestKeys(ek_fingerprint=fingerprint(ek.public), smbios_uuid=command.identity.smbios_uuid)
            candidate = replace(candidate, inventory=await self._inventory(keys))
        if self._issuers is not None:
            candidate = await self._issuers.complete(candidate, trusted)
        return admit(candidate, self._requirements, trusted, self._clock.now())

    async def activate(self, enrollment_id: str, proof: bytes) -> AttesterRecord:
        """Complete an enrolment: the TPM opened the credential, so EK and AK are in it together.

        A wrong proof consumes nothing (whoever guesses an enrolment id must not be able to end it), but only
        a few are allowed per minute.

        Raises:
            NotFoundError: no such enrolment, or it was completed already.
            RefusedError: expired, wrong proof, too many wrong proofs, or the attester was revoked.
        """
        now = self._clock.now()
        enrollment = await self._store.enrollment(enrollment_id)
        if enrollment is None:
            raise NotFoundError("enrollment", enrollment_id)
        if now >= enrollment.expires_at:
            raise RefusedError(Reason.ENROLLMENT_EXPIRED, f"enrolment {enrollment_id} expired; begin again")
        self._limiter.admit(enrollment_id, now)
        if not hmac.compare_digest(proof, enrollment.expected_proof):
            self._limiter.failed(enrollment_id, now)
            raise RefusedError(Reason.ACTIVATION_FAILED, "this is not the proof of the activated credential")
        attester = await self._recorder.enrolled(enrollment_id, new_id("att", self._random), now)
        if attester is None:
            raise NotFoundError("enrollment", enrollment_id)
        if attester.lifecycle is Lifecycle.REVOKED:
            raise RefusedError(Reason.ATTESTER_REVOKED, f"attester {attester.id} of this EK was revoked")
        return attester

    async def _spend(self, token_hash: bytes | None) -> TokenRecord | None:
        if token_hash is None:
            return None
        spend, token = await self._recorder.join_token_spent(token_hash, self._clock.now())
        if spend is not TokenSpend.ACCEPTED or token is None:
            raise refuse_spend(spend)
        return token

    async def _challenge(
        self,
        command: EnrollmentCommand,
        ek: LoadedKey,
        ak: LoadedKey,
        admission: Admission,
        token: TokenRecord | None,
    ) -> EnrollmentChallenge:
        endorsement = admission.endorsement
        now = self._clock.now()
        enrollment_id = new_id("enr", self._random)
        secret = self._random.bytes(min(_SECRET_BYTES, ek.public.name_alg.size))
        made = make_credential(ek.public, ak.name, secret, self._random.bytes)
        record = EnrollmentRecord(
            id=enrollment_id,
            tenant=token.tenant if token is not None else DEFAULT_TENANT,
            created_at=now,
            expires_at=now + self._lifetime,
            ek_fingerprint=fingerprint(ek.public),
            ek_public=command.ek_public,
            ek_certificate=endorsement.certificate,
            ek_issuer=endorsement.issuer,
            ek_profile=endorsement.profile,
            endorsed_by=endorsement.method.value,
            ak_name=ak.name,
            ak_public=command.ak_public,
            expected_proof=activation_proof(secret, enrollment_id, ak.name),
            identity=command.identity,
            token_id=token.id if token is not None else None,
        )
        await self._recorder.enrollment_begun(record)
        return EnrollmentChallenge(
            enrollment_id=enrollment_id,
            credential_blob=made.credential_blob,
            encrypted_secret=made.encrypted_secret,
            expires_at=record.expires_at,
        )


def _judge_keys(command: EnrollmentCommand) -> tuple[LoadedKey, LoadedKey]:
    """Both keys, if their attributes are those of an EK and of an AK.

    The AK's attributes are part of the name that the TPM checks at activation, so a software key that claims
    good ones cannot be activated, and one that is activated by another TPM has to admit what it is.
    """
    ek, ak = load_key(command.ek_public), load_key(command.ak_public)
    problems = ek_attribute_problems(ek.public)
    if problems:
        raise RefusedError(Reason.EK_ATTRIBUTES, f"the EK does not fit: {'; '.join(problems)}")
    problems = ak_attribute_problems(ak.public)
    if problems:
        raise RefusedError(Reason.AK_ATTRIBUTES, f"the AK does not fit: {'; '.join(problems)}")
    return ek, ak
