"""Evidence for those who audit: what a verdict was made from, as it came."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.appraisal.evidence import Evidence
from verifier.errors import EvidenceError, NotFoundError
from verifier.ports import AttesterRecord, Clock, Store, VerdictRecord
from verifier.reasons import Reason
from verifier.service.bundle import StoredEvidence, unpack
from verifier.service.ima_stored import judged_list
from verifier.service.recorder import Recorder
from verifier.service.rejudge import Case, stored_evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceView:
    """A verdict and its evidence. Nothing in the evidence is believed for being stored."""

    attester: AttesterRecord
    """As it is now."""
    verdict: VerdictRecord
    stored: StoredEvidence
    evidence: Evidence


class EvidenceService:
    """Gives stored evidence out, and records to whom: it says more of a machine than its verdict does."""

    def __init__(self, store: Store, recorder: Recorder, clock: Clock) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock

    async def show(self, tenant: str, attester_id: str, sequence: int | None, actor: str) -> EvidenceView:
        """The evidence of a verdict; `sequence` None: of the latest. The reading is in the audit log when this returns.

        Raises:
            NotFoundError: no such attester, or verdict of it.
            EvidenceError: `evidence-unavailable`: it is not kept any more.
            StoredDataDamaged: it is there and not what it should be; it is named, and not given out.
        """
        state = await self._store.attester_state(attester_id)
        if state is None or state.attester.tenant != tenant:
            raise NotFoundError("attester", attester_id)
        verdict = await self._verdict(tenant, attester_id, sequence)
        bundle = await self._store.blob(verdict.evidence_sha256)
        if bundle is None:
            raise EvidenceError(
                Reason.EVIDENCE_UNAVAILABLE, f"evidence {verdict.evidence_sha256.hex()} is not kept any more"
            )
        logs: dict[bytes, bytes] = {}
        for digest in unpack(bundle).logs:
            log = await self._store.blob(digest)
            if log is not None:
                logs[digest] = log
        ima_list = await judged_list(self._store, verdict, unpack(bundle))
        case = Case(verdict=verdict, bundle=bundle, ima_list=ima_list)
        stored, evidence = stored_evidence(case, logs)
        await self._recorder.evidence_read(verdict, self._clock.now(), actor)
        return EvidenceView(attester=state.attester, verdict=verdict, stored=stored, evidence=evidence)

    async def _verdict(self, tenant: str, attester_id: str, sequence: int | None) -> VerdictRecord:
        before = None if sequence is None else sequence + 1
        found = await self._store.history(tenant, attester_id, before=before, limit=1)
        if not found or sequence not in {None, found[0].sequence}:
            raise NotFoundError(
                "verdict of this attester", "the latest" if sequence is None else str(sequence)
            )
        return found[0]
