"""One judged attestation on its way into the store: what is kept of it, and how."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from verifier.appraisal.lineage import Incident, Lineage
from verifier.appraisal.result import Appraisal
from verifier.appraisal.staged import PolicySet
from verifier.claims import EndorsementFacts
from verifier.ports import AttesterState, BootRecord, Recording, VerdictRecord
from verifier.service.endorsement_facts import facts_mapping
from verifier.service.held_logs import HeldLog
from verifier.service.ima_lists import ImaKept
from verifier.service.model import AttestCommand
from verifier.service.nonces import spent_as
from verifier.service.verdicts import finding_mappings, vector_mapping
from verifier.tcg.attest import ClockInfo, parse_quote


class Judged(Struct, frozen=True, kw_only=True):
    """One appraisal on its way into the store."""

    command: AttestCommand
    state: AttesterState
    policies: PolicySet
    appraisal: Appraisal
    boot_log: HeldLog | None
    userspace_log: HeldLog | None
    nonce_expires_at: datetime
    line: Lineage
    """The attester's past with this evidence in it."""
    endorsement: EndorsementFacts
    ima: ImaKept
    at: datetime


def verdict_of(judged: Judged, evidence_sha256: bytes, validity_without_policy: timedelta) -> VerdictRecord:
    """The verdict as it is stored, but for its sequence, which the store gives it."""
    attester, appraisal, policy = judged.state.attester, judged.appraisal, judged.policies.primary
    validity = policy.validity if policy is not None else validity_without_policy
    return VerdictRecord(
        attester_id=attester.id,
        tenant=attester.tenant,
        sequence=0,
        tier=appraisal.tier,
        vector=vector_mapping(appraisal.vector),
        findings=finding_mappings(appraisal.findings),
        endorsement=facts_mapping(judged.endorsement),
        policy_id=appraisal.policy_id,
        policy_revision=appraisal.policy_revision,
        evidence_sha256=evidence_sha256,
        clock=_clock(judged)[0],
        boot_id=judged.command.boot_id,
        judged_at=judged.at,
        valid_until=judged.at + validity,
    )


def recording_of(judged: Judged, verdict: VerdictRecord, bundle: bytes, line: Lineage) -> Recording:
    """What one transaction stores of it: `bundle` is its evidence, `line` the attester's past from now on."""
    command, known = judged.command, judged.state.attester.identity
    clock, firmware_version = _clock(judged)
    blobs, evidence = {verdict.evidence_sha256: bundle}, {"quote": verdict.evidence_sha256.hex()}
    for role, log in (("boot-log", judged.boot_log), ("userspace-log", judged.userspace_log)):
        if log is not None:
            evidence[role] = log.sha256.hex()
            if not log.stored:
                blobs[log.sha256] = log.content
    named = judged.ima.named
    if named is not None and named.sha256 is not None and judged.ima.content:
        evidence["ima-list"] = named.sha256.hex()
        blobs[named.sha256] = judged.ima.content
    boot = BootRecord(
        clock=clock,
        firmware_version=firmware_version,
        boot_log_sha256=sha256_of(judged.boot_log),
        boot_id=command.boot_id,
        seen_at=judged.at,
        userspace_log_sha256=sha256_of(judged.userspace_log),
        ima=None if judged.ima.record is None else judged.ima.record.to_json(),
    )
    return Recording(
        nonce_hash=spent_as(command.nonce),
        nonce_expires_at=judged.nonce_expires_at,
        verdict=verdict,
        boot=boot,
        # The very object says to whoever asks later that nothing of it is new.
        identity=known if command.identity == known else command.identity,
        blobs=blobs,
        evidence=evidence,
        lineage=line,
        position=judged.state.position,
        judged_by=judged.state,
        ima_piece=judged.ima.piece,
        boot_goes_on=judged.state.boot is not None and judged.state.boot.goes_on_as(boot),
    )


def sha256_of(log: HeldLog | None) -> bytes | None:
    """What names a log, if there is one."""
    return None if log is None else log.sha256


def newly_opened(judged: Judged) -> Incident | None:
    """The incident that this evidence opened, or made graver."""
    before = None if judged.state.lineage is None else judged.state.lineage.incident
    now = judged.line.incident
    return None if now is None or (before is not None and before.kind is now.kind) else now


def _clock(judged: Judged) -> tuple[ClockInfo, int]:
    """The TPM's clock and firmware: signed by the AK even where the PCR values are not proven."""
    claims = judged.appraisal.claims
    if claims is not None:
        return claims.quote.clock, claims.quote.firmware_version
    quote = parse_quote(judged.command.attest)
    return quote.clock, quote.firmware_version
