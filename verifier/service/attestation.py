"""Attestation: evidence in, a durable verdict and the next challenge out."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct, structs

from verifier.appraisal.correlate import InventoryView
from verifier.appraisal.evidence import Evidence, Expectation
from verifier.appraisal.memo import Memo
from verifier.appraisal.result import Appraisal
from verifier.appraisal.staged import PolicySet, appraise_staged
from verifier.appraisal.stages import Stage
from verifier.claims import EndorsementFacts
from verifier.errors import EvidenceError, NotFoundError, RefusedError, StateMovedError, StoredDataDamaged
from verifier.findings import Status
from verifier.ports import AttesterState, Clock, Store
from verifier.ports_observe import CacheState, about, enter
from verifier.reasons import Reason
from verifier.service.assignments import AssignmentService
from verifier.service.bundle import pack
from verifier.service.challenge import (
    ChallengeService,
    Held,
    heard_attester,
    held_of,
)
from verifier.service.ear import EarIssuer
from verifier.service.endorsement_facts import endorsement_facts
from verifier.service.expected import ExpectedStates
from verifier.service.held_logs import HeldLog, HeldLogs
from verifier.service.ima_lists import ImaKept, ImaLists, SentList
from verifier.service.in_step import others_first
from verifier.service.inventory import InventoryService
from verifier.service.judged import Judged, newly_opened, recording_of, sha256_of, verdict_of
from verifier.service.lineage import (
    NO_RATCHETS,
    RatchetRules,
    expecting,
    history_of,
    is_overtaken,
    mark_of,
    mark_of_state,
    next_line,
    refuse_copy,
)
from verifier.service.model import AttestCommand, AttestOutcome, LogReference
from verifier.service.nonces import Nonces, spent_as
from verifier.service.rate import Rates
from verifier.service.recorder import Recorder
from verifier.service.verdicts import view

_ATTEMPTS: Final = 8
"""How often evidence is judged anew because other evidence of the attester was stored meanwhile."""
_OFFLOAD_ABOVE: Final = 256 * 1024
"""A log this large takes long enough to judge that other guests would feel it on the event loop."""


class _Known(Struct, frozen=True):
    """What is known of an attester before its evidence is looked at."""

    state: AttesterState
    policies: PolicySet
    endorsement: EndorsementFacts
    inventory: InventoryView | None


class AttestationService:
    """Judge evidence, every time whole, and store the verdict before answering."""

    def __init__(  # noqa: PLR0913 - one collaborator each
        self,
        *,
        store: Store,
        recorder: Recorder,
        policies: AssignmentService,
        challenges: ChallengeService,
        nonces: Nonces,
        ear: EarIssuer,
        clock: Clock,
        interval: timedelta,
        validity_without_policy: timedelta,
        memo: Memo,
        ima: ImaLists,
        rates: Rates,
        inventory: InventoryService | None = None,
        ratchets: RatchetRules = NO_RATCHETS,
        expected_states: int = 1024,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._policies = policies
        self._challenges = challenges
        self._nonces = nonces
        self._ear = ear
        self._clock = clock
        self._interval = interval
        self._default_validity = validity_without_policy
        self._ratchets = ratchets
        self._memo = memo
        self._ima = ima
        self._rates = rates
        self._inventory = inventory
        self._logs = HeldLogs(store, recorder)
        self._expected = ExpectedStates(expected_states)

    @property
    def expected_states(self) -> CacheState:
        """How often it was known without asking what an attester is judged by."""
        return self._expected.state

    @property
    def boot_logs(self) -> CacheState:
        """How the logs at hand fare."""
        return self._logs.state

    async def attest(self, command: AttestCommand) -> AttestOutcome:
        """Judge one attestation and store the result in the transaction that spends its nonce.

        Raises:
            RefusedError: the nonce is foreign, unknown, expired or spent; the attester is revoked; the quote
                does not prove the sender; a log was named that is not held; the machine is known to be a copy;
                the evidence was overtaken by newer evidence; too many attestations. Nothing is stored.
            MalformedInputError, UnsupportedError: evidence that cannot be read. Nothing is stored.
            NotFoundError: no such attester.
            VerifierFault: the verifier cannot answer. Nothing is stored, and that is no verdict.
        """
        now = self._clock.now()
        expires_at = self._nonces.check(command.nonce, command.attester_id, now)
        enter(Stage.LOOKUP)
        expected = self._expected.take(command.attester_id)
        if expected is not None:
            self._rates.attests(expected.attester.id, expected.attester.tenant, now)
            about(expected.attester.tenant, command.attester_id)
            # The store compares: what it does not take was concluded from what may be no more, and so was a refusal.
            with suppress(StateMovedError, EvidenceError, NotFoundError):
                return await self._attest(command, expected, expires_at, now)
        for _ in range(_ATTEMPTS):
            enter(Stage.LOOKUP)
            state = await heard_attester(self._store, command.attester_id)
            self._rates.attests(state.attester.id, state.attester.tenant, now)
            try:
                return await self._attest(command, state, expires_at, now)
            except StateMovedError:  # other evidence of this attester was stored while this was judged
                await self._refuse_spent(command)
        raise _overtaken()

    async def _attest(
        self, command: AttestCommand, state: AttesterState, expires_at: datetime, now: datetime
    ) -> AttestOutcome:
        """Judge by `state`, and store that if it is still what is known."""
        policies = await self._policies.for_attester(state.attester)
        held = held_of(state.boot)
        boot_log = await self._log(command.boot_log, held.boot_log)
        userspace_log = await self._log(command.userspace_log, held.userspace_log)
        inventory = await self._ask_inventory(state, command)
        endorsement = endorsement_facts(state.attester, inventory)
        known = _Known(state, policies, endorsement, inventory)
        await others_first()
        appraisal, ima = await self._appraise(command, known, (boot_log, userspace_log), now)
        if ima is not None:
            command = structs.replace(command, pcrs=ima.pcrs)
        if not appraisal.authenticated:
            raise refusal(appraisal)
        refuse_copy(state, command.identity)
        current = self._nonces.issued_at(command.nonce, mark_of_state(state))
        if not current and expires_at <= await self._store.nonces_dropped_until():
            # Only a clock that went back comes here. One that is current has not been spent: that changes the past.
            raise RefusedError(
                Reason.NONCE_EXPIRED, "it expired once already, before the verifier's clock went back"
            )
        if is_overtaken(appraisal.place, current=current):
            await self._refuse_spent(command)
            raise _overtaken()
        # Megabytes are hashed beside the event loop.
        kept = ImaKept() if ima is None else await asyncio.to_thread(ima.kept) if ima.is_long else ima.kept()
        judged = Judged(
            command=command,
            state=state,
            policies=policies,
            appraisal=appraisal,
            boot_log=boot_log,
            userspace_log=userspace_log,
            nonce_expires_at=expires_at,
            line=next_line(state, appraisal.place, self._ratchets, now),
            endorsement=endorsement,
            ima=kept,
            at=now,
        )
        outcome = await self._record(judged)
        self._rates.attested(state.attester.id, state.attester.tenant, now)
        return outcome

    async def _ask_inventory(self, state: AttesterState, command: AttestCommand) -> InventoryView | None:
        if self._inventory is None:
            return None
        return await self._inventory.view(state, command.identity.smbios_uuid)

    async def _refuse_spent(self, command: AttestCommand) -> None:
        """Evidence that is older than the newest was sent twice, or it came late: tell which."""
        if await self._store.nonce_spent(spent_as(command.nonce)):
            raise _reused()

    async def _log(self, reference: LogReference | None, held: bytes | None) -> HeldLog | None:
        """A log: as sent, or as held.

        Only the log this attester last sent can be named by digest: nobody can probe for what others sent,
        and an agent never names another.
        """
        if reference is None:
            return None
        if reference.content is not None:
            return HeldLog.of(reference.content)
        if reference.sha256 is None or reference.sha256 != held:
            raise RefusedError(
                Reason.BOOT_LOG_MISSING, "no log with this digest is held for this attester; send it whole"
            )
        log = await self._logs.read(reference.sha256)
        if log is None:
            raise RefusedError(Reason.BOOT_LOG_MISSING, "this log is no longer held; send it whole")
        return log

    async def _appraise(
        self,
        command: AttestCommand,
        known: _Known,
        logs: tuple[HeldLog | None, HeldLog | None],
        now: datetime,
    ) -> tuple[Appraisal, SentList | None]:
        boot_log, userspace_log = logs
        state, policies = known.state, known.policies
        evidence = Evidence(
            attest=command.attest,
            signature=command.signature,
            pcrs=command.pcrs,
            boot_log=None if boot_log is None else boot_log.content,
            kernel_command_line=command.kernel_command_line,
            smbios_uuid=command.identity.smbios_uuid,
            boot_id=command.boot_id,
            boot_log_sha256=None if boot_log is None else boot_log.sha256,
            ratchet=command.ratchet,
            userspace_log=None if userspace_log is None else userspace_log.content,
            userspace_log_sha256=None if userspace_log is None else userspace_log.sha256,
            nvpcrs=command.nvpcrs,
            hostname=command.identity.hostname,
            address=command.address,
        )
        expectation = Expectation(
            ak_public=state.attester.ak_public,
            ak_activated=True,  # an attester exists only through a completed activation
            nonce=command.quoted,
            # What only a policy that is tried asks for is not demanded: its absence is that policy's finding.
            request=(policies.demanded,),
            endorsement=known.endorsement,
            inventory=known.inventory,
            ratchet=self._ratchets.chain(state.attester.id),
        )
        if command.ima is not None:
            enter(Stage.IMA)
        ima = await self._ima.take(command, state, policies, evidence, expectation)
        if ima is not None:
            evidence = structs.replace(evidence, pcrs=ima.pcrs)
        arguments = (evidence, expectation, policies, history_of(state), now, self._memo, enter, ima)
        if sum([len(log.content) for log in logs if log is not None]) > _OFFLOAD_ABOVE:
            return await asyncio.to_thread(appraise_staged, *arguments), ima
        return appraise_staged(*arguments), ima

    async def _record(self, judged: Judged) -> AttestOutcome:
        enter(Stage.COMMIT)
        await others_first()
        command, attester = judged.command, judged.state.attester
        bundle = pack(
            command,
            attester.ak_public,
            judged.policies.asked,
            judged.boot_log,
            judged.userspace_log,
            judged.ima.named,
        )
        verdict = verdict_of(judged, hashlib.sha256(bundle).digest(), self._default_validity)
        next_in = min(self._interval, (verdict.valid_until - verdict.judged_at) / 2)
        place = judged.appraisal.place
        challenge = self._challenges.make(
            attester,
            judged.policies,
            Held(
                sha256_of(judged.boot_log),
                sha256_of(judged.userspace_log),
                judged.ima.wanted(command.boot_id),
            ),
            next_in,
            mark_of(judged.state.position + 1, verdict.evidence_sha256),
            None if place is not None and place.parted else judged.line,
        )
        line = judged.line if challenge.ratchet is None else expecting(judged.line, challenge.ratchet)
        recording = recording_of(judged, verdict, bundle, line)
        await others_first()
        stored = await self._recorder.verdict(recording, judged.state.latest, newly_opened(judged))
        if stored is None:
            raise _reused()
        self._expected.keep(judged.state.after(recording, stored))
        await others_first()
        enter(Stage.SIGN)
        for log in (judged.boot_log, judged.userspace_log):
            if log is not None:
                await self._logs.keep(log)
        shown = view(attester, stored, judged.at)
        ear = (
            await self._ear.issue(shown, judged.at, audience=command.ear_audience)
            if command.want_ear
            else None
        )
        return AttestOutcome(verdict=shown, attester=attester, challenge=challenge, next_in=next_in, ear=ear)


def _reused() -> RefusedError:
    return RefusedError(Reason.NONCE_REUSED, "this nonce was used before")


def _overtaken() -> RefusedError:
    return RefusedError(
        Reason.EVIDENCE_OVERTAKEN, "newer evidence of this attester was judged while this was on its way"
    )


def refusal(appraisal: Appraisal) -> RefusedError:
    """Why evidence that is not authenticated is refused."""
    for finding in appraisal.findings:
        if finding.status is Status.FAILED:
            return RefusedError(finding.reason, finding.message)
    raise StoredDataDamaged("an appraisal is not authenticated and names no reason")
