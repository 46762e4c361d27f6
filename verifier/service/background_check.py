"""Background check (RFC 9334, section 5.2): a relying party's own nonce and evidence over it, judged and forgotten.

Nothing is stored or moved by it: neither the latest verdict, nor what is known of the machine's past, nor a nonce. So a
relying party can prove freshness to itself, and can do the machine no harm with what it was given.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from msgspec import structs

from verifier.appraisal.evidence import Evidence, Expectation
from verifier.appraisal.memo import Memo
from verifier.appraisal.result import Appraisal
from verifier.appraisal.staged import appraise_staged
from verifier.crypto.keys import fingerprint, load_key
from verifier.errors import RefusedError
from verifier.ports import AttesterState, Clock, Store, VerdictRecord
from verifier.reasons import Reason
from verifier.service.assignments import AssignmentService
from verifier.service.attestation import refusal
from verifier.service.bundle import pack
from verifier.service.challenge import known_attester
from verifier.service.endorsement_facts import endorsement_facts
from verifier.service.held_logs import HeldLog
from verifier.service.ima_lists import ImaLists
from verifier.service.inventory import InventoryService
from verifier.service.lineage import RatchetRules, history_of, refuse_copy
from verifier.service.model import AttestCommand, LogReference, VerdictView
from verifier.service.rate import RateLimitedError
from verifier.service.verdicts import finding_mapping, vector_mapping, view
from verifier.tcg.attest import parse_quote

BINDING: Final = b"vtpm-attest appraisal v1"
_AT_ONCE: Final = 4
_MOST_WAITING: Final = 64
_RETRY: Final = 2.0
_LATE: Final = timedelta(minutes=2)
"""How old evidence may honestly be when it is judged."""
_log = structlog.get_logger("vtpm_attest.appraisals")


def qualifying_data(nonce: bytes) -> bytes:
    """What the agent has the TPM sign for a relying party's nonce: SHA-256 of `BINDING` and the nonce.

    Never the nonce itself: it might be one of the verifier's, and evidence over it could then be passed off as an
    attestation.
    """
    return hashlib.sha256(BINDING + nonce).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckCommand:
    """Evidence over a relying party's nonce; nothing in it is believed yet.

    Attributes:
        nonce: the relying party's own.
        ak_public: TPM2B_PUBLIC of the key that is said to have signed.
        ek_public: TPM2B_PUBLIC of the EK whose attester it is said to be.
        attester_id: whose evidence the relying party takes it for; None: that of `ek_public`.
        evidence: its `attester_id` and `nonce` say nothing.
    """

    nonce: bytes
    ak_public: bytes
    ek_public: bytes | None
    attester_id: str | None
    evidence: AttestCommand


class BackgroundChecks:
    """Judges such evidence as an attestation of that attester would be judged now."""

    def __init__(
        self,
        *,
        store: Store,
        policies: AssignmentService,
        clock: Clock,
        validity_without_policy: timedelta,
        ratchets: RatchetRules,
        memo: Memo,
        inventory: InventoryService,
        ima: ImaLists,
    ) -> None:
        self._store = store
        self._policies = policies
        self._clock = clock
        self._default_validity = validity_without_policy
        self._ratchets = ratchets
        self._memo = memo
        self._inventory = inventory
        self._ima = ima
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._present = 0

    async def check(self, tenant: str, command: CheckCommand, actor: str) -> VerdictView:
        """What this evidence proves now; `sequence` is 0, as it is no verdict of the attester's.

        Proven: the TPM of that attester signed, after the nonce was made, what the findings say. Not proven: who sent
        it, or that nothing has changed since.

        Raises:
            RefusedError: `ak-unproven`: no attester of this tenant has this key. `quote-nonce`, `quote-signature`: the
                evidence is not over that nonce, or not that key's. `evidence-overtaken`: the attester has shown a newer
                state meanwhile. `attester-revoked`, `identity-replaced`, `reenrollment-required`.
            RateLimitedError: too many are judged already.
            MalformedInputError, UnsupportedError: evidence that cannot be read.
        """
        async with self._turn():
            state = await self._attester(tenant, command)
            evidence = structs.replace(
                command.evidence, attester_id=state.attester.id, nonce=_signed_over(command)
            )
            verdict = await self._judge(state, evidence)
        _log.info("appraisal.made", attester=verdict.attester_id, status=verdict.tier.label, actor=actor)
        return view(state.attester, verdict, verdict.judged_at)

    async def _attester(self, tenant: str, command: CheckCommand) -> AttesterState:
        """Whose key it is. The key decides; EK and id only say where to look."""
        name = load_key(command.ak_public).name
        state = None
        if command.attester_id is not None:
            state = await self._store.attester_state(command.attester_id)
        elif command.ek_public is not None:
            ek = fingerprint(load_key(command.ek_public).public)
            state = await self._store.attester_of_ek(tenant, ek)
        if state is None or state.attester.tenant != tenant or state.attester.ak_name != name:
            raise RefusedError(
                Reason.AK_UNPROVEN,
                "no attester that is enrolled here has this AK, or not the one that is named",
            )
        return known_attester(state, state.attester.id)

    async def _judge(self, state: AttesterState, command: AttestCommand) -> VerdictRecord:
        now = self._clock.now()
        policies = await self._policies.for_attester(state.attester)
        inventory = await self._inventory.view(state, command.identity.smbios_uuid)
        logs = await asyncio.to_thread(_logs, command)
        expectation = Expectation(
            ak_public=state.attester.ak_public,
            ak_activated=True,  # an attester exists only through a completed activation
            nonce=command.nonce,
            request=(policies.demanded,),
            endorsement=endorsement_facts(state.attester, inventory),
            inventory=inventory,
            ratchet=self._ratchets.chain(state.attester.id),
        )
        evidence = _evidence(command, *logs)
        ima = await self._ima.take(command, state, policies, evidence, expectation)
        if ima is not None:
            evidence = structs.replace(evidence, pcrs=ima.pcrs)
        past = history_of(state)
        appraisal = await asyncio.to_thread(
            appraise_staged, evidence, expectation, policies, past, now, self._memo, runtime=ima
        )
        if not appraisal.authenticated:
            raise refusal(appraisal)
        refuse_copy(state, command.identity)
        _refuse_overtaken(state, appraisal, now)
        validity = self._default_validity if policies.primary is None else policies.primary.validity
        bundle = pack(command, state.attester.ak_public, expectation.request, *logs)
        return _verdict(state, command, appraisal, hashlib.sha256(bundle).digest(), (now, now + validity))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._present >= _MOST_WAITING:
            raise RateLimitedError(_RETRY, "as many background checks as allowed are under way already")
        self._present += 1
        try:
            async with self._turns:
                yield
        finally:
            self._present -= 1


def _signed_over(command: CheckCommand) -> bytes:
    """What the quote has to be over: our agent's binding of the nonce, or the nonce as it is, as other tools do it."""
    if parse_quote(command.evidence.attest).extra_data == command.nonce:
        return command.nonce
    return qualifying_data(command.nonce)


def _refuse_overtaken(state: AttesterState, appraisal: Appraisal, now: datetime) -> None:
    """Evidence from before the newest attestation honestly shows an older state: it is late, and no rollback."""
    latest, place = state.latest, appraisal.place
    if latest is None or place is None or not place.parted or now - latest.judged_at >= _LATE:
        return
    raise RefusedError(
        Reason.EVIDENCE_OVERTAKEN,
        "the attester has shown a newer state since this evidence was collected: collect it again",
    )


def _logs(command: AttestCommand) -> tuple[HeldLog | None, HeldLog | None]:
    """Boot log and userspace log, with their digests."""
    return _held(command.boot_log), _held(command.userspace_log)


def _held(reference: LogReference | None) -> HeldLog | None:
    return None if reference is None or reference.content is None else HeldLog.of(reference.content)


def _evidence(command: AttestCommand, boot_log: HeldLog | None, userspace_log: HeldLog | None) -> Evidence:
    return Evidence(
        attest=command.attest,
        signature=command.signature,
        pcrs=command.pcrs,
        boot_log=None if boot_log is None else boot_log.content,
        boot_log_sha256=None if boot_log is None else boot_log.sha256,
        userspace_log=None if userspace_log is None else userspace_log.content,
        userspace_log_sha256=None if userspace_log is None else userspace_log.sha256,
        kernel_command_line=command.kernel_command_line,
        smbios_uuid=command.identity.smbios_uuid,
        hostname=command.identity.hostname,
        boot_id=command.boot_id,
        ratchet=command.ratchet,
        nvpcrs=command.nvpcrs,
    )


def _verdict(
    state: AttesterState,
    command: AttestCommand,
    appraisal: Appraisal,
    evidence_sha256: bytes,
    valid: tuple[datetime, datetime],
) -> VerdictRecord:
    judged_at, valid_until = valid
    return VerdictRecord(
        attester_id=state.attester.id,
        tenant=state.attester.tenant,
        sequence=0,
        tier=appraisal.tier,
        vector=vector_mapping(appraisal.vector),
        findings=tuple(map(finding_mapping, appraisal.findings)),
        policy_id=appraisal.policy_id,
        policy_revision=appraisal.policy_revision,
        evidence_sha256=evidence_sha256,
        clock=parse_quote(command.attest).clock,
        boot_id=command.boot_id,
        judged_at=judged_at,
        valid_until=valid_until,
    )
