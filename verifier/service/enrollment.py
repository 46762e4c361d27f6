"""Enrolment: bind an AK to an EK that is trusted, by credential activation.

TPM 2.0 Library Specification, Part 1, section 24. The secret that only this TPM can recover is not stored;
what is stored is the HMAC it must produce, which is worth nothing after this enrolment.
"""

from __future__ import annotations

import enum
import hmac
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from verifier.crypto.credential import make_credential
from verifier.crypto.keys import LoadedKey, fingerprint, load_key
from verifier.errors import NotFoundError, RefusedError, StateMovedError
from verifier.ports import (
    DEFAULT_TENANT,
    Clock,
    Lifecycle,
    Random,
    Store,
    TokenRecord,
)
from verifier.ports_enrollment import EnrollmentBounds, EnrollmentRecord, EnrollmentStatus, Filed
from verifier.reasons import Reason
from verifier.service.endorsement import Admission, Candidate, Endorsement, admit
from verifier.service.ids import new_id
from verifier.service.issuers import IssuerFinder
from verifier.service.known import Known, KnownMachines, may_be_decided
from verifier.service.methods import Method, Requirements
from verifier.service.model import Activation, EnrollmentChallenge, EnrollmentCommand
from verifier.service.rate import RateLimit
from verifier.service.recorder import Recorder
from verifier.service.tokens import TokenService, join_secret_hash, used_up
from verifier.service.trust import TrustService
from verifier.tcg.public import ak_attribute_problems, ek_attribute_problems

PROOF_LABEL: Final = b"vtpm-attest activation v1"
_SECRET_BYTES: Final = 32
_ASK_AGAIN: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRules:
    """What enrolment asks for, and how long things last.

    Attributes:
        requirements: what a machine must bring.
        lifetime: to answer a credential challenge.
        approval_lifetime: for a person to decide.
        bounds: on what waits for a person.
    """

    requirements: Requirements
    lifetime: timedelta
    approval_lifetime: timedelta
    bounds: EnrollmentBounds


class _Fee(enum.Enum):
    """What a machine that brings a join token owes."""

    DUE = enum.auto()
    PAID = enum.auto()
    """A use of this token was spent on these keys when they asked before: the answer was lost, or a person decides."""
    WAIVED = enum.auto()
    """They are enrolled as they are, and learn of it: what the lost answer to their proof said. It changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A machine's request, read, and who is known with its keys."""

    command: EnrollmentCommand
    tenant: str
    token: TokenRecord | None
    ek: LoadedKey
    ak: LoadedKey
    known: Known
    asked_before: EnrollmentRecord | None
    """The same machine waits for a person already."""
    fee: _Fee


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """The requirements are met by `endorsement`; `waits_for`: but a person has to decide."""

    endorsement: Endorsement
    waits_for: Reason | None
    replaces: str | None


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
        rules: EnrollmentRules,
        limiter: RateLimit,
        known: KnownMachines,
        issuers: IssuerFinder | None = None,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._tokens = tokens
        self._clock = clock
        self._random = random
        self._trust = trust
        self._rules = rules
        self._limiter = limiter
        self._known = known
        self._issuers = issuers

    async def begin(self, command: EnrollmentCommand) -> EnrollmentChallenge:
        """Check everything that can be checked without the TPM, then challenge it.

        A use of the join token is spent here, last of all and with the challenge in one transaction: a request that
        is refused costs none, and of N machines that race for the last use exactly one gets a challenge. A machine
        that was not answered, or waits for a person, and asks again with the same keys pays nothing.

        Raises:
            RefusedError: token, certificates, inventory, EK or AK attributes; the attester is revoked or a copy; a
                person refused this EK; too many wait already. Nothing is stored, no use is spent.
            MalformedInputError: a key that does not parse.
        """
        request = await self._read(command)
        standing = await self._judge(request)
        return await self._challenge(request, standing)

    async def _read(self, command: EnrollmentCommand) -> _Request:
        token = None
        if command.join_token is not None:
            token = await self._tokens.check_join(join_secret_hash(command.join_token))
        if token is None and (Method.TOKEN,) in self._rules.requirements.every:
            raise RefusedError(Reason.JOIN_TOKEN_REQUIRED, "enrolment here needs a join token")
        ek, ak = _judge_keys(command)
        tenant = DEFAULT_TENANT if token is None else token.tenant
        before = await self._asked_before(tenant, fingerprint(ek.public), ak.name)
        known = await self._known.look(tenant, fingerprint(ek.public), command.identity)
        known.refuse()
        fee = _Fee.WAIVED if token is None else await self._fee(token, known, ek, ak, before)
        return _Request(
            command=command,
            tenant=tenant,
            token=token,
            ek=ek,
            ak=ak,
            known=known,
            asked_before=before,
            fee=fee,
        )

    async def _fee(
        self, token: TokenRecord, known: Known, ek: LoadedKey, ak: LoadedKey, before: EnrollmentRecord | None
    ) -> _Fee:
        if before is not None and before.token_id == token.id:
            return _Fee.PAID
        if token.uses_left is None:
            return _Fee.DUE
        now = self._clock.now()
        if await self._store.has_offer(token.tenant, fingerprint(ek.public), ak.name, token.id, now):
            return _Fee.PAID
        if token.uses_left > 0:
            return _Fee.DUE
        if known.stands(ak.name):
            return _Fee.WAIVED
        raise used_up()

    async def _asked_before(
        self, tenant: str, ek_fingerprint: bytes, ak_name: bytes
    ) -> EnrollmentRecord | None:
        """The pending enrolment of the same keys; raises where a person refused this EK last."""
        found = await self._store.enrollments_of_ek(tenant, ek_fingerprint, self._clock.now())
        decided = [(one.decided_at, one) for one in found if one.decided_at is not None]
        last = max(decided, key=lambda pair: pair[0])[1] if decided else None
        if last is not None and last.status is EnrollmentStatus.REFUSED:
            raise _refused(last)
        pending = (one for one in found if one.status is EnrollmentStatus.PENDING)
        return next((one for one in pending if one.ak_name == ak_name), None)

    async def _judge(self, request: _Request) -> _Standing:
        """Gather what the requirements ask for, then judge. Nobody is asked for what no requirement names."""
        command, known, requirements = request.command, request.known, self._rules.requirements
        trusted = await self._trust.current(request.tenant)
        candidate = Candidate(
            ek=request.ek.public,
            ak=request.ak.public,
            ek_certificates=command.ek_certificates,
            ak_certificates=command.ak_certificates,
            device_certificates=command.device_certificates,
            issuers=command.ek_chain,
            token=request.token is not None,
        )
        if Method.INVENTORY in requirements or known.is_replacement:
            found = await self._known.ask(fingerprint(request.ek.public), command.identity.smbios_uuid)
            candidate = replace(candidate, inventory=found)
        if known.is_replacement and may_be_decided(candidate.inventory):
            requirements = requirements.or_approval(Method.INVENTORY)
        if self._issuers is not None:
            candidate = await self._issuers.complete(candidate, trusted)
        admission = admit(candidate, requirements, trusted, self._clock.now())
        return await self._stand(request, candidate, admission)

    async def _stand(self, request: _Request, candidate: Candidate, admission: Admission) -> _Standing:
        """Whether a person has to decide, and whose place the machine takes."""
        known, waits_for, replaces = request.known, None, None
        if known.is_replacement:
            agreed = await self._known.agreement(known, candidate.inventory)
            replaces = None if agreed is None else agreed.replaces
            if agreed is None or admission.waiting:
                waits_for = Reason.IDENTITY_REPLACED
        elif (admission.waiting and not _approved_before(known, request.ak.name)) or (
            known.has_to_be_let_in_again and request.token is None
        ):
            waits_for = Reason.ENROLLMENT_PENDING
        endorsement = admission.endorsement if waits_for is None else _without_approval(admission)
        return _Standing(endorsement=endorsement, waits_for=waits_for, replaces=replaces)

    async def activate(self, enrollment_id: str, proof: bytes) -> Activation:
        """Complete an enrolment: the TPM opened the credential, so EK and AK are in it together.

        One that a person has to decide becomes pending, and the same proof asks again how it stands. A wrong proof
        consumes nothing (whoever guesses an enrolment id must not be able to end it), but only a few are allowed per
        minute.

        Raises:
            NotFoundError: no such enrolment, or it was completed already.
            RefusedError: expired, wrong proof, too many wrong proofs, refused by a person, or the attester was revoked.
        """
        now = self._clock.now()
        enrollment = await self._store.enrollment(enrollment_id)
        if enrollment is None:
            raise NotFoundError("enrollment", enrollment_id)
        if now >= enrollment.expires_at:
            raise RefusedError(Reason.ENROLLMENT_EXPIRED, f"enrolment {enrollment_id} expired; begin again")
        self._limiter.check(enrollment_id, now.timestamp())
        if not hmac.compare_digest(proof, enrollment.expected_proof):
            self._limiter.take(enrollment_id, now.timestamp())
            raise RefusedError(Reason.ACTIVATION_FAILED, "this is not the proof of the activated credential")
        match enrollment.status:
            case EnrollmentStatus.OFFERED:
                return await self._proven(enrollment, now)
            case EnrollmentStatus.PENDING:
                return _waiting(enrollment)
            case EnrollmentStatus.APPROVED:
                return await self._approved(enrollment)
            case EnrollmentStatus.REFUSED:
                raise _refused(enrollment)
            case _:
                assert_never(enrollment.status)

    async def _proven(self, enrollment: EnrollmentRecord, now: datetime) -> Activation:
        waits_for = enrollment.waits_for or await self._appeared(enrollment)
        if waits_for is not None:
            until = now + self._rules.approval_lifetime
            pending = await self._recorder.enrollment_pending(enrollment.id, waits_for, now, until)
            if pending is None:
                raise NotFoundError("enrollment", enrollment.id)
            return _waiting(pending)
        try:
            attester = await self._recorder.enrolled(
                enrollment.id, new_id("att", self._random), now, enrollment.replaces
            )
        except StateMovedError as error:
            raise RefusedError(
                Reason.ENROLLMENT_EXPIRED,
                f"this machine's identity was replaced meanwhile ({error}); begin again",
            ) from error
        if attester is None:
            raise NotFoundError("enrollment", enrollment.id)
        if attester.lifecycle is Lifecycle.REVOKED:
            raise RefusedError(Reason.ATTESTER_REVOKED, f"attester {attester.id} of this EK was revoked")
        return Activation(enrollment_id=enrollment.id, attester=attester)

    async def _appeared(self, enrollment: EnrollmentRecord) -> str | None:
        """Whether the machine became known with another TPM while this challenge was out."""
        known = await self._known.look(enrollment.tenant, enrollment.ek_fingerprint, enrollment.identity)
        if not known.is_replacement or enrollment.replaces is not None:
            return None  # who is to be replaced is looked at again when it is done
        found = await self._known.ask(enrollment.ek_fingerprint, enrollment.identity.smbios_uuid)
        agreed = await self._known.agreement(known, found)
        return None if agreed is not None and agreed.replaces is None else Reason.IDENTITY_REPLACED.value

    async def _approved(self, enrollment: EnrollmentRecord) -> Activation:
        state = None
        if enrollment.attester_id is not None:
            state = await self._store.attester_state(enrollment.attester_id)
        if state is None:
            raise NotFoundError("attester of enrollment", enrollment.id)
        if state.attester.lifecycle is Lifecycle.REVOKED:
            raise RefusedError(Reason.ATTESTER_REVOKED, f"attester {state.attester.id} was revoked")
        return Activation(enrollment_id=enrollment.id, attester=state.attester)

    async def _challenge(self, request: _Request, standing: _Standing) -> EnrollmentChallenge:
        command, ek, ak = request.command, request.ek, request.ak
        endorsement = standing.endorsement
        now = self._clock.now()
        enrollment_id = new_id("enr", self._random)
        secret = self._random.bytes(min(_SECRET_BYTES, ek.public.name_alg.size))
        made = make_credential(ek.public, ak.name, secret, self._random.bytes)
        record = EnrollmentRecord(
            id=enrollment_id,
            tenant=request.tenant,
            created_at=now,
            expires_at=now + self._rules.lifetime,
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
            # What was not paid for is nobody's word that a machine may come back.
            token_id=None if request.token is None or request.fee is _Fee.WAIVED else request.token.id,
            source=command.source,
            waits_for=None if standing.waits_for is None else standing.waits_for.value,
            replaces=standing.replaces,
        )
        bounded = standing.waits_for is not None and request.asked_before is None
        filed = await self._recorder.enrollment_begun(
            record, self._rules.bounds if bounded else None, spends=request.fee is _Fee.DUE
        )
        if filed is Filed.UNPAID and request.token is not None:
            await self._tokens.check_join(request.token.secret_hash)
            raise used_up()
        if filed is not Filed.KEPT:
            raise _queue_full(filed)
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


def _approved_before(known: Known, ak_name: bytes) -> bool:
    """A person has let in exactly these keys, and nothing was said against them since."""
    if known.attester is None or known.attester.attester.ak_name != ak_name:
        return False
    methods = known.attester.attester.ek_profile.get("methods")
    return isinstance(methods, list) and Method.APPROVE.value in methods


def _without_approval(admission: Admission) -> Endorsement:
    """What held by itself: the approval is added when it is given."""
    endorsement = admission.endorsement
    methods = [method.value for method in admission.methods if method is not Method.APPROVE]
    return replace(endorsement, profile={**endorsement.profile, "methods": methods})


def _waiting(enrollment: EnrollmentRecord) -> Activation:
    return Activation(
        enrollment_id=enrollment.id, attester=None, waits_for=enrollment.waits_for, retry_after=_ASK_AGAIN
    )


def _refused(enrollment: EnrollmentRecord) -> RefusedError:
    why = f": {enrollment.decision_reason}" if enrollment.decision_reason else ""
    return RefusedError(Reason.ENROLLMENT_REFUSED, f"an operator refused enrolment {enrollment.id}{why}")


def _queue_full(filed: Filed) -> RefusedError:
    whose = "from this address " if filed is Filed.SOURCE_FULL else ""
    return RefusedError(
        Reason.ENROLLMENT_QUEUE_FULL, f"too many enrolments {whose}wait for a decision; try again later"
    )
