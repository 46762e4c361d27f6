"""A secret for a machine that is affirming now, by evidence that came with the question (docs/adr/0016-secrets.md).

In this order: the evidence is judged and the verdict stored, as any other; the grants are looked at; the verdict has to be
affirming; the secret is sealed to the TPM and the process that asked; the release is recorded, in a transaction that looks
once more whether all of that still holds; then the answer leaves. Who has no grant learns nothing, not even whether there
is such a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from msgspec import structs

from verifier.crypto.keys import load_key
from verifier.crypto.release import Answer, SealedSecret, asked, read_reply_key, seal
from verifier.crypto.signatures import verify
from verifier.errors import EvidenceError, RefusedError
from verifier.findings import Status
from verifier.ports import AttesterRecord, Clock, Random, Store
from verifier.ports_enrollment import AuditEntry
from verifier.ports_secrets import Released, SecretBox, SecretGrant, SecretRelease, StoredSecret
from verifier.reasons import Reason, Tier
from verifier.service.attestation import AttestationService
from verifier.service.lru import BoundedLru
from verifier.service.model import AttestCommand, AttestOutcome, VerdictView
from verifier.service.recorder import Recorder
from verifier.service.secrets import about
from verifier.service.verdicts import satisfies
from verifier.tcg.attest import parse_quote
from verifier.tcg.signature import parse_signature

_ATTEMPTS: Final = 8
"""How often a secret is looked up anew because operators changed it meanwhile."""
_MOST_CODES: Final = 8
_NONCES: Final = 4096
_UNHEARD: Final = frozenset({Reason.ATTESTER_REVOKED, Reason.IDENTITY_REPLACED, Reason.REENROLLMENT_REQUIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCommand:
    """A question for a secret; `evidence` has yet to authenticate it."""

    name: str
    evidence: AttestCommand
    reply_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOutcome:
    """The stored verdict with what goes with it, and the secret, sealed."""

    attestation: AttestOutcome
    revision: int
    sealed: SealedSecret


class NotReleasedError(RefusedError):
    """The evidence was judged, its verdict is stored, and the secret stays here all the same."""

    def __init__(self, reason: Reason, detail: str, verdict: VerdictView) -> None:
        self.verdict = verdict
        super().__init__(reason, detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    name: str
    outcome: AttestOutcome
    asked: bytes


class SecretReleases:
    """Give secrets out."""

    def __init__(
        self,
        *,
        store: Store,
        recorder: Recorder,
        attestations: AttestationService,
        box: SecretBox,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._attestations = attestations
        self._box = box
        self._clock = clock
        self._random = random
        self._told: BoundedLru[bytes, bool] = BoundedLru(_NONCES, _NONCES)
        """Nonces over which a machine that is not heard has asked: they stay unspent, and may come again."""

    async def release(self, command: ReleaseCommand) -> ReleaseOutcome:
        """Judge the evidence, then seal and record, or refuse and record that.

        Raises:
            RefusedError, MalformedInputError, UnsupportedError, NotFoundError: as `AttestationService.attest`. Where it is
                not proven who asks, only the log has that: whoever can send a request could otherwise fill the audit
                log. A machine that is not heard any more, and was itself, is in it once for each nonce.
            NotReleasedError: `secret-unknown`, `secret-withheld`; or `attester-revoked`, `evidence-overtaken`, where that
                happened since the evidence was judged. It is in the audit log, but for the last.
            VerifierFault: the verifier cannot answer; nothing left.
        """
        reply_key = read_reply_key(command.reply_key)
        over = asked(command.evidence.nonce, command.name, command.reply_key)
        try:
            outcome = await self._attestations.attest(structs.replace(command.evidence, asked=over))
        except RefusedError as error:
            if error.reason in _UNHEARD:
                await self._unheard(command, over, error)
            raise
        question = _Question(name=command.name, outcome=outcome, asked=over)
        attester = outcome.attester
        for _ in range(_ATTEMPTS):
            secret, grant = await self._granted(question)
            await self._affirmed(question)
            content = self._box.open(
                secret.key_id, secret.sealed, about(secret.tenant, secret.name, secret.revision)
            )
            sealed = seal(
                content,
                ek=load_key(attester.ek_public).public,
                ak_name=attester.ak_name,
                reply_key=reply_key,
                answer=Answer(
                    asked=over,
                    attester_id=attester.id,
                    sequence=outcome.verdict.record.sequence,
                    revision=secret.revision,
                ),
                random=self._random.bytes,
            )
            if await self._record(question, secret, grant):
                return ReleaseOutcome(attestation=outcome, revision=secret.revision, sealed=sealed)
        raise NotReleasedError(
            Reason.CONFLICT, f"secret {command.name!r} is being changed; ask again", outcome.verdict
        )

    async def _unheard(self, command: ReleaseCommand, over: bytes, error: RefusedError) -> None:
        """Record that a machine asked that was revoked, replaced or sent away, if its AK says so."""
        evidence = command.evidence
        state = await self._store.attester_state(evidence.attester_id)
        if state is None or self._told.get(evidence.nonce) or not _signed(evidence, state.attester, over):
            return
        self._told.put(evidence.nonce, value=True, weight=1)
        audit = AuditEntry(
            tenant=state.attester.tenant,
            at=self._clock.now(),
            actor=state.attester.id,
            action="secret.refused",
            subject=command.name,
            reason=error.detail,
            detail={"attester": state.attester.id, "reasons": [error.reason.value]},
        )
        await self._recorder.secret_refused(audit)

    async def _granted(self, question: _Question) -> tuple[StoredSecret, SecretGrant]:
        """The secret and a grant by which the attester may have it, one that does not count before one that does."""
        attester, record = question.outcome.attester, question.outcome.verdict.record
        secret, now = await self._store.secret(attester.tenant, question.name), self._clock.now()
        if secret is None:
            raise await self._unknown(question, "there is no such secret")
        meant = [one for one in secret.grants if one.covers(attester.id, attester.labels, record.policy_id)]
        usable = [one for one in meant if one.is_open(now)]
        if not usable:
            raise await self._unknown(
                question, "its grants are used up or over" if meant else "no grant is for this attester"
            )
        return secret, min(usable, key=lambda one: one.uses_left is not None)

    async def _affirmed(self, question: _Question) -> None:
        verdict = question.outcome.verdict
        if satisfies(verdict.lifecycle, verdict.tier, Tier.AFFIRMING):
            return
        codes = dict.fromkeys(
            str(one["code"]) for one in verdict.findings if one["status"] != Status.PASSED.value
        )
        named = ", ".join(list(codes)[:_MOST_CODES])
        raise await self._withheld(
            question, f"the verdict is {verdict.tier.label}{f': {named}' if named else ''}", tuple(codes)
        )

    async def _record(self, question: _Question, secret: StoredSecret, grant: SecretGrant) -> bool:
        """Whether it is in the audit log and may leave; False where the secret is another by now."""
        attester, verdict = question.outcome.attester, question.outcome.verdict
        now = self._clock.now()
        release = SecretRelease(
            tenant=attester.tenant,
            name=secret.name,
            revision=secret.revision,
            grant_id=grant.id,
            attester_id=attester.id,
            sequence=verdict.record.sequence,
            at=now,
        )
        detail = {"revision": secret.revision, "grant": grant.id}
        done = await self._recorder.secret_released(release, self._audit(question, "released", "", detail))
        match done:
            case Released.RECORDED:
                return True
            case Released.MOVED:
                return False
            case Released.OVERTAKEN:
                raise NotReleasedError(
                    Reason.EVIDENCE_OVERTAKEN, "newer evidence of this attester was judged meanwhile", verdict
                )
            case Released.INCIDENT:
                raise await self._withheld(question, "a clone or rollback of this TPM waits for a person")
            case Released.SHUT_OUT:
                why = "the attester was revoked or replaced meanwhile"
                await self._recorder.secret_refused(self._audit(question, "withheld", why, {}))
                raise NotReleasedError(Reason.ATTESTER_REVOKED, why, verdict)
            case _:
                assert_never(done)

    async def _unknown(self, question: _Question, why: str) -> NotReleasedError:
        """What is wrong is for the operator alone."""
        await self._recorder.secret_refused(self._audit(question, "refused", why, {}))
        return NotReleasedError(
            Reason.SECRET_UNKNOWN,
            f"no secret {question.name!r} for attester {question.outcome.attester.id}",
            question.outcome.verdict,
        )

    async def _withheld(self, question: _Question, why: str, codes: tuple[str, ...] = ()) -> NotReleasedError:
        detail = {"reasons": list(codes[:_MOST_CODES])} if codes else {}
        await self._recorder.secret_refused(self._audit(question, "withheld", why, detail))
        return NotReleasedError(
            Reason.SECRET_WITHHELD, f"secret {question.name!r} is withheld: {why}", question.outcome.verdict
        )

    def _audit(self, question: _Question, what: str, why: str, detail: Mapping[str, object]) -> AuditEntry:
        attester, verdict = question.outcome.attester, question.outcome.verdict
        return AuditEntry(
            tenant=attester.tenant,
            at=self._clock.now(),
            actor=attester.id,
            action=f"secret.{what}",
            subject=question.name,
            reason=why,
            detail={
                "attester": attester.id,
                "sequence": verdict.record.sequence,
                "status": verdict.tier.label,
                **detail,
            },
        )


def _signed(evidence: AttestCommand, attester: AttesterRecord, over: bytes) -> bool:
    """Whether the attester's AK quoted this. The nonce in it was checked before."""
    try:
        signature = parse_signature(evidence.signature)
        quoted = parse_quote(evidence.attest).extra_data == over
        return quoted and verify(load_key(attester.ak_public).key, signature, evidence.attest)
    except EvidenceError:
        return False
