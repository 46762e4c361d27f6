"""Every use case in one frozen box, as the composition root hands it to the web layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from verifier.ports import Clock
from verifier.ports_announcements import AnnouncementState
from verifier.ports_events import Outbox
from verifier.ports_observe import CacheState, QueueState
from verifier.service.admission import Admission
from verifier.service.ak_certificates import AkCertificates
from verifier.service.approvals import ApprovalService
from verifier.service.assignments import AssignmentService
from verifier.service.attestation import AttestationService
from verifier.service.background_check import BackgroundChecks
from verifier.service.boots import BootService
from verifier.service.callers import Callers
from verifier.service.challenge import ChallengeService
from verifier.service.deliveries import Deliverer
from verifier.service.dry_run import DryRunService
from verifier.service.ear import EarIssuer
from verifier.service.endorsement_review import EndorsementReview
from verifier.service.enrollment import EnrollmentService
from verifier.service.events import LocalEvents
from verifier.service.evidence import EvidenceService
from verifier.service.expiry import ExpiryWatch
from verifier.service.feed import EventFeed
from verifier.service.fleet import FleetService
from verifier.service.fleet_counts import FleetCounts
from verifier.service.fleet_rejudge import FleetRejudge
from verifier.service.incidents import IncidentService
from verifier.service.inventory import InventoryService
from verifier.service.inventory_report import InventoryReport
from verifier.service.log_proofs import LogProofs
from verifier.service.log_sequencer import LogSequencer
from verifier.service.policies import PolicyService
from verifier.service.queries import QueryService
from verifier.service.rate import Rates
from verifier.service.recorder import Recorder
from verifier.service.rejudgings import Rejudgings
from verifier.service.retention import Retention
from verifier.service.samples import FleetSamples
from verifier.service.secret_release import SecretReleases
from verifier.service.secrets import SecretService
from verifier.service.tokens import TokenService
from verifier.service.triage import RuntimeTriage
from verifier.service.trust import TrustService
from verifier.service.watch import VerdictWatch
from verifier.service.webhooks import WebhookService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the service can do."""

    admission: Admission
    rates: Rates
    enrollment: EnrollmentService
    approvals: ApprovalService
    incidents: IncidentService
    inventory: InventoryService
    inventory_report: InventoryReport
    challenges: ChallengeService
    attestations: AttestationService
    checks: BackgroundChecks
    fleet: FleetService
    counts: FleetCounts
    queries: QueryService
    watch: VerdictWatch
    boots: BootService
    samples: FleetSamples
    events: LocalEvents
    feed: EventFeed
    webhooks: WebhookService
    secrets: SecretService
    releases: SecretReleases
    deliveries: Deliverer
    outbox: Outbox
    evidence: EvidenceService
    log: LogProofs
    sequencer: LogSequencer
    retention: Retention
    dry_runs: DryRunService
    rejudging: FleetRejudge
    rejudgings: Rejudgings
    triage: RuntimeTriage
    policies: PolicyService
    assignments: AssignmentService
    tokens: TokenService
    callers: Callers
    trust: TrustService
    ak_certificates: AkCertificates
    expiry: ExpiryWatch
    endorsements: EndorsementReview
    ear: EarIssuer
    recorder: Recorder
    clock: Clock
    announced: AnnouncementState
    queues: Callable[[], Mapping[str, QueueState]]
    caches: Callable[[], Mapping[str, CacheState]]
