"""Parts of the composition root: webhooks, sign-in, from settings to use cases; reads that are remembered; caches."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from verifier.crypto.keys import load_key
from verifier.keys.secret import webhook_secrets
from verifier.keys.signer import FileSigner
from verifier.keys.tls import ClientAnchors
from verifier.oidc.bearer import BearerRules, BearerTokens
from verifier.oidc.provider import OidcProvider, OidcRules, secret_file
from verifier.ports import Clock, Random, Store, TokenSigner, Workers
from verifier.ports_announcements import Announcement, Announcements, Topic
from verifier.ports_events import Outbox
from verifier.ports_observe import CacheState
from verifier.ports_runtime import RuntimeReferences
from verifier.ports_sign_in import SignIn
from verifier.service.assignments import AssignmentService
from verifier.service.attestation import AttestationService
from verifier.service.background_check import BackgroundChecks
from verifier.service.callers import Callers
from verifier.service.deliveries import Deliverer, DeliveryRules
from verifier.service.events import LocalEvents
from verifier.service.feed import EventFeed
from verifier.service.fleet import FleetService
from verifier.service.fleet_counts import FleetCounts
from verifier.service.ima_lists import ImaLists
from verifier.service.inventory import InventoryService
from verifier.service.lineage import RatchetRules
from verifier.service.memo import AppraisalMemo
from verifier.service.policies import PolicyService
from verifier.service.rate import RateRules, Rates
from verifier.service.recorder import Recorder
from verifier.service.retention import Retention, RetentionRules
from verifier.service.tokens import TokenService
from verifier.service.triage import RuntimeTriage
from verifier.service.watch import VerdictWatch
from verifier.service.webhooks import WebhookService
from verifier.settings import Settings
from verifier.settings_access import certificate_grants, grants
from verifier.settings_oidc import role_scopes
from verifier.store import SqlStore
from verifier.web.dashboard.sign_in_pages import RETURN
from verifier.web.metrics_exchange import Exchange
from verifier.web.proxies import Proxies
from verifier.web.routing import WebConfig
from verifier.webhook_sender import HttpWebhooks


class Judging(NamedTuple):
    """What long IMA lists are judged with."""

    workers: Workers
    references: RuntimeReferences


def wire_triage(
    store: Store, assignments: AssignmentService, judging: Judging, clock: Clock
) -> RuntimeTriage:
    """What looks through the fleet's lists."""
    return RuntimeTriage(
        store=store,
        assignments=assignments,
        references=judging.references,
        workers=judging.workers,
        clock=clock,
    )


def wire_webhooks(
    settings: Settings, outbox: Outbox, recorder: Recorder, clock: Clock, random: Random
) -> tuple[WebhookService, Deliverer]:
    """What operators set up, and what sends. Raises `VerifierFault` for CA certificates that cannot be used."""
    own, secret_of = settings.webhooks, webhook_secrets(settings.state_dir)
    sender = HttpWebhooks(
        timeout=own.timeout, allow_http=own.allow_http, allow_private=own.allow_private, ca=own.ca
    )
    service = WebhookService(
        outbox=outbox, recorder=recorder, clock=clock, random=random, sender=sender, secret_of=secret_of
    )
    rules = DeliveryRules(
        source=settings.base_url,
        attempts=own.attempts,
        timeout=own.timeout,
        first_retry=own.first_retry,
        longest_retry=own.longest_retry,
    )
    deliverer = Deliverer(
        outbox=outbox, sender=sender, secret_of=secret_of, rules=rules, clock=clock, random=random
    )
    return service, deliverer


def wire_reads(
    settings: Settings, store: Store, recorder: Recorder, clock: Clock, events: LocalEvents, feed: EventFeed
) -> tuple[FleetService, VerdictWatch, FleetCounts]:
    """What is read of the fleet, and what is remembered of it until this process changes it."""
    watch = VerdictWatch(store, clock, settings.limits.waiting)
    counts = FleetCounts(store, clock, feed.followed)
    fleet = FleetService(store, recorder, clock, watch, counts)
    events.listen(watch.changed)
    events.listen(fleet.changed)
    return fleet, watch, counts


def wire_retention(settings: Settings, store: SqlStore, recorder: Recorder, clock: Clock) -> Retention:
    """How long what is kept."""
    rules = RetentionRules(
        history=settings.history.keep, evidence=settings.evidence.keep, events=settings.events.keep
    )
    return Retention(store=store, outbox=store, recorder=recorder, clock=clock, rules=rules)


def hear(
    announcements: Announcements,
    *,
    policies: PolicyService,
    assignments: AssignmentService,
    tokens: TokenService,
    feed: EventFeed,
    watch: VerdictWatch,
    signer: TokenSigner,
) -> None:
    """Forget and wake what another replica's changes concern."""
    forget_keys = signer.forget if isinstance(signer, FileSigner) else _nothing
    concerned: dict[Topic, tuple[Callable[[], None], ...]] = {
        Topic.EVENTS: (feed.wake, watch.wake),
        Topic.POLICIES: (policies.forget_current,),
        Topic.ASSIGNMENTS: (assignments.forget_all,),
        Topic.TOKENS: (tokens.forget,),
        Topic.KEYS: (forget_keys,),
    }
    concerned[Topic.ANYTHING] = tuple(one for every in concerned.values() for one in every)

    def heard(change: Announcement) -> None:
        for act in concerned[change.topic]:
            act()

    announcements.listen(heard)


def _nothing() -> None:
    """Keys that the settings name are read at the start."""


def wire_checks(
    settings: Settings,
    store: Store,
    policies: AssignmentService,
    clock: Clock,
    ratchets: RatchetRules,
    memo: AppraisalMemo,
    inventory: InventoryService,
    ima: ImaLists,
) -> BackgroundChecks:
    """Background checks, by the rules of attestations."""
    return BackgroundChecks(
        store=store,
        policies=policies,
        clock=clock,
        validity_without_policy=settings.attestation.validity_without_policy,
        ratchets=ratchets,
        memo=memo,
        inventory=inventory,
        ima=ima,
    )


def caches(
    attestations: AttestationService, memo: AppraisalMemo, policies: PolicyService
) -> Mapping[str, CacheState]:
    """Every cache of the hot path, by name."""
    keys = load_key.cache_info()
    return {
        **memo.states,
        "attesters": attestations.expected_states,
        "boot-logs": attestations.boot_logs,
        "keys": CacheState(keys.hits, keys.misses, keys.currsize),
        "policies": policies.cache,
    }


def wire_sign_in(settings: Settings, clock: Clock) -> SignIn | None:
    """Sign-in of people, if it is configured. Raises `VerifierFault` for CA certificates that cannot be used."""
    own = settings.oidc
    if not own.issuer:
        return None
    rules = OidcRules(
        issuer=own.issuer,
        client_id=own.client_id,
        secret=None if own.client_secret_file is None else secret_file(own.client_secret_file),
        redirect=settings.base_url + RETURN,
        scopes=own.scopes,
        role_claim=own.role_claim,
        timeout=own.timeout,
        ca=own.ca,
    )
    return SignIn(
        provider=OidcProvider(rules, clock), issuer=own.issuer, name=own.name, scopes=role_scopes(own.roles)
    )


def wire_callers(settings: Settings, tokens: TokenService, clock: Clock) -> Callers:
    """Who else than bearers of our tokens may call. Raises `VerifierFault` for CA certificates that cannot be used."""
    own, clients = settings.bearer, settings.client_certificates
    bearer = None
    if own.issuer:
        rules = BearerRules(
            issuer=own.issuer,
            audience=own.audience,
            role_claim=own.role_claim,
            timeout=own.timeout,
            ca=own.ca,
        )
        bearer = (BearerTokens(rules, clock), grants(own.roles))
    certificates = None if clients.ca is None else certificate_grants(clients.roles)
    return Callers(tokens, clock, bearer, certificates)


def wire_rates(settings: Settings, clock: Clock) -> Rates:
    """How often who may call."""
    limits = settings.limits
    rules = RateRules(
        identity=limits.calls_per_identity,
        tenant=limits.calls_per_tenant,
        address=limits.calls_per_address,
        refusals=limits.refusals_per_address,
        attester=limits.attestations_per_attester,
        machines=limits.attestations_per_tenant,
        burst=limits.burst.total_seconds(),
    )
    return Rates(rules, clock)


def balancers_of(settings: Settings) -> Proxies | None:
    """Whose connections begin with the header of the PROXY protocol."""
    own = settings.listen
    return Proxies(own.proxies) if own.proxy_protocol else None


def client_anchors(settings: Settings) -> ClientAnchors | None:
    """Whose client certificates TLS asks for."""
    own = settings.client_certificates
    return None if own.ca is None else ClientAnchors(own.ca, own.crl)


def web_config(
    settings: Settings, version: str, ca: Path | None, clock: Clock, exchange: Exchange | None
) -> WebConfig:
    """What the web layer is told; `ca`: the certificate that agents pin."""
    return WebConfig(
        issuer=settings.base_url,
        version=version,
        ca_pem=None if ca is None else ca.read_bytes(),
        body_timeout=settings.limits.body_timeout.total_seconds(),
        large_bodies=settings.limits.large_bodies * 1024 * 1024,
        connections=settings.limits.connections,
        most_connections=settings.limits.most_connections,
        handshakes=settings.limits.handshakes,
        access_log=settings.log.access,
        access_sample=settings.log.access_sample,
        metrics_life=settings.metrics.cache.total_seconds(),
        metrics_exchange=exchange,
        sign_in=wire_sign_in(settings, clock),
        proxies=Proxies(settings.listen.proxies) if settings.listen.proxies else None,
    )


def tls_hostnames(settings: Settings) -> list[str]:
    """What the own certificate is for."""
    names = ["localhost", "127.0.0.1", "::1", urlsplit(settings.base_url).hostname, settings.listen.host]
    names += [*settings.tls.hostnames, socket.gethostname()]
    wildcards = {"0.0.0.0", "::", ""}  # noqa: S104 - left out, not listened on
    return [name for name in names if name and name.isascii() and name not in wildcards]
