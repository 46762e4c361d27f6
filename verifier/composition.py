"""A part of the composition root: the use cases, each with its collaborators."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from verifier.inventory.anchor_files import read_anchor_bytes
from verifier.inventory_wiring import enrollment_rules, question
from verifier.keys.ak_ca import AkCa
from verifier.keys.endings import OwnEndings
from verifier.keys.fixed_signer import open_fixed
from verifier.keys.secret import nonce_key, ratchet_key
from verifier.keys.signer import FileSigner
from verifier.keys.tls import TlsFiles
from verifier.log_wiring import wire_log
from verifier.policy_files import read_policy_signers
from verifier.ports import Clock, Random, TokenSigner
from verifier.secret_wiring import wire_secrets
from verifier.service.admission import Admission, AdmissionRules
from verifier.service.ak_certificates import AkCertificateRules, AkCertificates, Issue
from verifier.service.approvals import ApprovalService
from verifier.service.assignments import AssignmentService
from verifier.service.attestation import AttestationService
from verifier.service.boots import BootService
from verifier.service.challenge import ChallengeService
from verifier.service.dry_run import DryRunService
from verifier.service.ear import EarIssuer
from verifier.service.ear_claims import EarIdentity
from verifier.service.endorsement_review import EndorsementReview
from verifier.service.enrollment import EnrollmentService
from verifier.service.events import LocalEvents
from verifier.service.evidence import EvidenceService
from verifier.service.expiry import ExpiryWatch
from verifier.service.feed import EventFeed
from verifier.service.fleet_rejudge import FleetRejudge
from verifier.service.ima_lists import ImaLists
from verifier.service.incidents import IncidentService
from verifier.service.inventory import InventoryService
from verifier.service.inventory_report import InventoryReport
from verifier.service.known import KnownMachines
from verifier.service.lineage import RatchetRules
from verifier.service.memo import AppraisalMemo
from verifier.service.nonces import Nonces
from verifier.service.policies import PolicyService
from verifier.service.queries import QueryService
from verifier.service.rate import RateLimit
from verifier.service.recorder import Recorder
from verifier.service.rejudgings import Rejudgings
from verifier.service.samples import FleetSamples
from verifier.service.services import Services
from verifier.service.tokens import TokenService
from verifier.service.trust import TrustService
from verifier.settings import Settings
from verifier.store import SqlStore
from verifier.trust import TrustFiles, issuer_finder
from verifier.wiring import (
    Judging,
    caches,
    hear,
    wire_callers,
    wire_checks,
    wire_rates,
    wire_reads,
    wire_retention,
    wire_triage,
    wire_webhooks,
)

VERSION: Final = version("vtpm-attest")


def wire(
    settings: Settings,
    store: SqlStore,
    tls: TlsFiles,
    trust: TrustFiles,
    clock: Clock,
    random: Random,
    inventory: InventoryService,
    judging: Judging,
) -> Services:
    """Every use case with what it works on."""
    attestation = settings.attestation
    recorder = Recorder(store, events := LocalEvents())
    announced = store.announcements.state
    feed = EventFeed(store, clock, settings.events.max_streams, announced)
    fleet, watch, counts = wire_reads(settings, store, recorder, clock, events, feed)
    nonces = Nonces(nonce_key(settings.state_dir), random)
    ratchets = RatchetRules(
        key=ratchet_key(settings.state_dir) if attestation.ratchet else None,
        hardware_pause=attestation.ratchet_hardware_pause,
    )
    tokens = TokenService(store, recorder, clock, random, tls.ca_fingerprint())
    signers = read_policy_signers(settings.policy_signers)
    policies = PolicyService(store, recorder, clock, signers, judging.references)
    assignments = AssignmentService(
        store=store,
        recorder=recorder,
        policies=policies,
        clock=clock,
        default_policy=settings.default_policy,
    )
    ima = ImaLists(store, judging.references, judging.workers)
    challenges = ChallengeService(
        store=store,
        policies=assignments,
        nonces=nonces,
        clock=clock,
        nonce_lifetime=attestation.nonce_lifetime,
        ratchets=ratchets,
        reads_ima=ima.reads,
    )
    identity = EarIdentity(
        developer=settings.ear.developer, build=f"vtpm-attest {VERSION}", issuer=settings.base_url
    )
    signer = _token_signer(settings, clock)
    ear = EarIssuer(signer, identity)
    hear(
        store.announcements,
        policies=policies,
        assignments=assignments,
        tokens=tokens,
        feed=feed,
        watch=watch,
        signer=signer,
    )
    anchors = TrustService(
        store=store, recorder=recorder, clock=clock, configured=trust.configured, read=read_anchor_bytes
    )
    ak_ca = AkCa(settings.state_dir / "ak-ca", clock.now)
    known = KnownMachines(store, question(inventory))
    webhooks, deliveries = wire_webhooks(settings, store, recorder, clock, random)
    memo = AppraisalMemo()
    rates = wire_rates(settings, clock)
    attestations = AttestationService(
        store=store,
        recorder=recorder,
        policies=assignments,
        challenges=challenges,
        nonces=nonces,
        ear=ear,
        clock=clock,
        interval=attestation.interval,
        validity_without_policy=attestation.validity_without_policy,
        ratchets=ratchets,
        memo=memo,
        ima=ima,
        rates=rates,
        inventory=inventory,
        expected_states=settings.limits.connections,
    )
    sequencer, log = wire_log(settings, store, recorder, clock)
    secrets, releases = wire_secrets(settings, store, recorder, attestations, clock, random)
    rejudging = FleetRejudge(
        store=store,
        recorder=recorder,
        policies=policies,
        assignments=assignments,
        workers=judging.workers,
        clock=clock,
        references=judging.references,
        validity_without_policy=attestation.validity_without_policy,
    )
    limits = settings.limits
    admission = Admission(AdmissionRules(slots=limits.slots, waiting=limits.queue), random)
    return Services(
        admission=admission,
        rates=rates,
        approvals=ApprovalService(
            store=store,
            recorder=recorder,
            clock=clock,
            random=random,
            known=known,
            keep=settings.enrollment.approval_lifetime,
        ),
        incidents=IncidentService(store, recorder, clock),
        inventory=inventory,
        inventory_report=InventoryReport(inventory, store, clock),
        enrollment=EnrollmentService(
            store=store,
            recorder=recorder,
            tokens=tokens,
            clock=clock,
            random=random,
            trust=anchors,
            rules=enrollment_rules(settings),
            known=known,
            limiter=RateLimit(limits.wrong_proofs / 60, 60, "too many wrong proofs"),
            issuers=issuer_finder(
                settings.trust.fetch_hosts,
                private=settings.trust.fetch_private,
                timeout=settings.trust.fetch_timeout,
                clock=clock,
            ),
        ),
        challenges=challenges,
        attestations=attestations,
        checks=wire_checks(settings, store, assignments, clock, ratchets, memo, inventory, ima),
        fleet=fleet,
        counts=counts,
        watch=watch,
        queries=QueryService(store, clock),
        boots=BootService(store),
        samples=FleetSamples(store, recorder, clock, counts),
        events=events,
        feed=feed,
        webhooks=webhooks,
        deliveries=deliveries,
        secrets=secrets,
        releases=releases,
        outbox=store,
        evidence=EvidenceService(store, recorder, clock),
        log=log,
        sequencer=sequencer,
        retention=wire_retention(settings, store, recorder, clock),
        dry_runs=DryRunService(
            store=store,
            assignments=assignments,
            workers=judging.workers,
            clock=clock,
            references=judging.references,
        ),
        rejudging=rejudging,
        rejudgings=Rejudgings(
            store=store, recorder=recorder, policies=policies, pages=rejudging, clock=clock, random=random
        ),
        triage=wire_triage(store, assignments, judging, clock),
        policies=policies,
        assignments=assignments,
        tokens=tokens,
        callers=wire_callers(settings, tokens, clock),
        trust=anchors,
        ak_certificates=_ak_certificates(settings, ak_ca, recorder, clock),
        endorsements=EndorsementReview(store=store, trust=anchors, recorder=recorder, clock=clock),
        expiry=ExpiryWatch(trust=anchors, recorder=recorder, clock=clock, own=OwnEndings(tls, ak_ca)),
        ear=ear,
        recorder=recorder,
        clock=clock,
        announced=announced,
        queues=lambda: {**store.queues, "workers": judging.workers.queue, **admission.states()},
        caches=lambda: caches(attestations, memo, policies),
    )


def _token_signer(settings: Settings, clock: Clock) -> TokenSigner:
    if settings.ear.key is not None:
        return open_fixed(settings.ear.key, settings.ear.published_keys)
    return FileSigner(settings.state_dir / "keys", clock.now)


def _ak_certificates(settings: Settings, signer: AkCa, recorder: Recorder, clock: Clock) -> AkCertificates:
    own = settings.ak_certificates
    rules = AkCertificateRules(issue=Issue(own.issue), lifetime=own.lifetime)
    return AkCertificates(signer, rules, recorder, clock, settings.base_url)
