"""Composition root: the only module that knows settings, store, keys and web together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web

from verifier import background
from verifier.adapters import ProcessWorkers, SystemClock, SystemRandom
from verifier.composition import VERSION, wire
from verifier.errors import EvidenceError, VerifierFault
from verifier.inventory.live import LiveInventory
from verifier.inventory_wiring import follow, sources
from verifier.keys import log_keys as log_key_files
from verifier.keys.files import ensure_directory, exposed
from verifier.keys.log_keys import LogKeyEntry
from verifier.keys.pem import read_certificate
from verifier.keys.secret import session_key
from verifier.keys.signer import Rotated, rotate
from verifier.keys.tls import TlsFiles, own_tls
from verifier.keys.tls_live import LiveTls
from verifier.log_wiring import KEYS as LOG_KEYS
from verifier.log_wiring import log_keys, wire_log
from verifier.policy_files import policy_sources
from verifier.ports import DEFAULT_TENANT, Clock, PolicyRecord, Random, Workers
from verifier.ports_announcements import Announcement, Topic
from verifier.ports_history import StoredTable
from verifier.ports_runtime import RuntimeReferences
from verifier.runtime_references import FolderReferences
from verifier.service.events import LocalEvents
from verifier.service.inventory import InventoryService
from verifier.service.recorder import Recorder
from verifier.service.services import Services
from verifier.serving.memory import EVERY, TRIM_EVERY, keep_little, settle, sweep, trim
from verifier.serving.place import Ending, Place
from verifier.serving.sockets import take_descriptors
from verifier.settings import Settings, environment
from verifier.store import SqlStore, announce, open_store, upgrade
from verifier.telemetry import open_telemetry
from verifier.trust import TrustFiles, load_trust
from verifier.trust_report import report_trust
from verifier.web.acceptor import DOOR, Acceptor
from verifier.web.app import build_app as build_web_app
from verifier.web.dashboard.setup import NAMES as DASHBOARD_OPERATIONS
from verifier.web.dashboard.setup import add_dashboard
from verifier.web.metrics_exchange import Exchange
from verifier.web.runner import Runner
from verifier.wiring import (
    Judging,
    balancers_of,
    client_anchors,
    tls_hostnames,
    web_config,
)

SHUTDOWN: Final = 20.0
"""Seconds that requests which were begun have to end."""
_TO_SIGN_ANEW: Final = timedelta(minutes=1)
"""So long the log's old key is trusted, however little it is: what it signed has to be signed by the new one."""
_log = structlog.get_logger("vtpm_attest.main")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A verifier with its store open, ready to be served or to be asked by the command line."""

    settings: Settings
    store: SqlStore
    services: Services
    tls: TlsFiles
    trust: TrustFiles
    clock: Clock
    inventory: LiveInventory | None
    """Says nothing until it is started: whoever only asks for something else disturbs no vCenter."""

    def app(self, exchange: Exchange | None = None) -> web.Application:
        """The web application over this service."""
        return build_app(self, exchange)


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    clock: Clock | None = None,
    random: Random | None = None,
    workers: Workers | None = None,
    references: RuntimeReferences | None = None,
) -> AsyncIterator[Service]:
    """Make keys and certificates where there are none, open (and migrate) the database, wire the use cases.

    Raises:
        VerifierFault: the state directory, a key, a trust anchor or the database cannot be used.
    """
    clock, random, workers = clock or SystemClock(), random or SystemRandom(), workers or ProcessWorkers()
    ensure_directory(settings.state_dir)
    tls, trust = prepare_tls(settings, clock), _trust_files(settings)
    inventory = sources(settings, clock, environment())
    store = await open_store(settings.database_url)
    try:
        asked = InventoryService(inventory, clock, settings.inventory_max_age)
        judging = Judging(workers, references or _references(settings))
        services = wire(settings, store, tls, trust, clock, random, asked, judging)
        yield Service(
            settings=settings,
            store=store,
            services=services,
            tls=tls,
            trust=trust,
            clock=clock,
            inventory=inventory,
        )
    finally:
        if inventory is not None:
            await inventory.close()
        await workers.close()
        await store.close()


def _references(settings: Settings) -> RuntimeReferences:
    own, beside = settings.runtime_sets_dir, settings.policies_dir
    return FolderReferences(() if own is None else (own,), () if beside is None else (beside,))


def build_app(service: Service, exchange: Exchange | None = None) -> web.Application:
    """The aiohttp application; serve it with `auto_decompress=False`."""
    settings = service.settings
    config = web_config(settings, VERSION, service.tls.ca, service.clock, exchange)
    telemetry = open_telemetry(settings.telemetry, VERSION)
    app = build_web_app(service.services, config, DASHBOARD_OPERATIONS, telemetry)
    if telemetry is not None:
        app.on_cleanup.append(lambda _: telemetry.close())
    add_dashboard(app, service.services, config, session_key(settings.state_dir), SystemRandom())
    return app


def prepare_tls(settings: Settings, clock: Clock) -> TlsFiles:
    """The configured certificate, or the own one, made or renewed now if need be."""
    tls = settings.tls
    if tls.certificate is not None and tls.key is not None:
        return TlsFiles(certificate=tls.certificate, key=tls.key, ca=tls.ca)
    return own_tls(settings.state_dir / "tls", tls_hostnames(settings), clock.now())


def _renew(live: LiveTls, settings: Settings, clock: Clock) -> None:
    """Renew the own certificate when it is time; take up whatever is new in the files."""
    files = prepare_tls(settings, clock)
    if live.refresh(files):
        ends = read_certificate(files.certificate).not_valid_after_utc
        _log.info("tls.certificate-taken-up", certificate=str(files.certificate), ends=ends.isoformat())


def rotate_keys(settings: Settings, overlap: timedelta) -> Rotated:
    """New EAR signing key; see `verifier.keys.signer.rotate`. Replicas that share the folder are told to read it.

    Raises:
        VerifierFault: the database cannot be used, and no key was changed; or the keys cannot, and what their index says counts.
    """

    def record(rotated: Rotated) -> None:
        new, old = rotated
        asyncio.run(_recorded(settings, f"ear:{new.kid}", [f"ear:{one.kid}" for one in old]))

    rotated = rotate(settings.state_dir / "keys", overlap, SystemClock().now(), record)
    asyncio.run(announce(settings.database_url, Announcement(Topic.KEYS)))
    return rotated


def log_keys_of(settings: Settings) -> tuple[LogKeyEntry, ...]:
    """Keys of the transparency log, the newest first; made now where there are none."""
    log_keys(settings, SystemClock())
    return log_key_files.read_index(settings.state_dir / LOG_KEYS)


def rotate_log_keys(settings: Settings, overlap: timedelta) -> log_key_files.Rotated:
    """New key of the transparency log, which is signed by the old one too for `overlap`, from now on.

    Raises:
        VerifierFault: as `rotate_keys`; where the database goes away once the keys are rotated, the service signs anew.
        LogDamagedError: the log is not what was signed. The keys are rotated.
    """
    log_keys_of(settings)
    clock = SystemClock()

    def record(rotated: log_key_files.Rotated) -> None:
        new, old = rotated
        asyncio.run(_recorded(settings, new.key, [one.key for one in old]))

    overlap = max(overlap, _TO_SIGN_ANEW)
    rotated = log_key_files.rotate(settings.state_dir / LOG_KEYS, overlap, clock.now(), record)
    asyncio.run(_sign_anew(settings))
    return rotated


async def _sign_anew(settings: Settings) -> None:
    """What is there has to be of a key that is trusted, also when the old one no longer is."""
    clock = SystemClock()
    store = await open_store(settings.database_url)
    try:
        sequencer, _ = wire_log(settings, store, Recorder(store, LocalEvents()), clock)
        await sequencer.extend()
        await sequencer.sign()
    finally:
        await store.close()


async def _recorded(settings: Settings, key: str, retiring: Sequence[str]) -> None:
    store = await open_store(settings.database_url)
    try:
        await Recorder(store, LocalEvents()).key_rotated(key, retiring, SystemClock().now(), "cli")
    finally:
        await store.close()


def upgrade_database(settings: Settings) -> None:
    """Create the database or bring it up to date."""
    ensure_directory(settings.state_dir)
    upgrade(settings.database_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStatus:
    """What a database is, and holds."""

    revision: str
    tables: tuple[StoredTable, ...]


async def database_status(settings: Settings) -> DatabaseStatus:
    """Look at the database as it is.

    Raises:
        SchemaMismatch: it is not of this version.
        StoreUnavailable: it cannot be reached.
    """
    store = await open_store(settings.database_url, migrate=False)
    try:
        return DatabaseStatus(revision=await store.revision(), tables=await store.storage())
    finally:
        await store.close()


async def register_policies(service: Service) -> None:
    """Register every policy of `policies_dir`; one that is new there becomes the current revision.

    One that is known stays what it is: a restart, of a single worker too, must not undo what an operator has applied since.

    Raises:
        VerifierFault: a file that is no usable policy, by its name; the service does not start with it.
    """
    for path, source in policy_sources(service.settings.policies_dir):
        try:
            policy = await _register(service, source)
        except EvidenceError as error:
            raise VerifierFault(f"policy {path}: {error}") from error
        current = await service.store.current_policy(DEFAULT_TENANT, policy.id)
        if current is not None and current.revision != policy.revision:
            _log.warning(
                "policy.superseded", file=str(path), file_revision=policy.revision, current=current.revision
            )
    default = service.settings.default_policy
    if default is None or await service.store.current_policy(DEFAULT_TENANT, default) is None:
        _log.warning(
            "policy.no-default", default_policy=default, effect="verdicts without an assigned policy are none"
        )


async def _register(service: Service, source: bytes) -> PolicyRecord:
    policies = service.services.policies
    read = policies.read(source)
    known = await service.store.policy_revision(DEFAULT_TENANT, read.id, read.revision)
    return await policies.register(DEFAULT_TENANT, source, "start", current=known is None)


def tell_exposed(settings: Settings) -> None:
    """Keys that others of this machine may read are told; they are used all the same."""
    for path in exposed(settings.state_dir):
        _log.warning(
            "keys.exposed",
            file=str(path),
            next=f"chmod 600 {path}; and rotate it if anybody may have read it",
        )


def following(service: Service) -> AbstractAsyncContextManager[None]:
    """Hear of other replicas' changes from now on; follow the inventories, and keep what they say, while this is open."""
    service.store.follow()
    return follow(
        service.inventory,
        store=service.store,
        recorder=service.services.recorder,
        clock=service.clock,
        history=service.settings.inventory_history,
    )


async def prepare(settings: Settings) -> TlsFiles:
    """Make keys, certificate and database, register policies: once, before several workers would do so at once.

    Raises:
        VerifierFault: something of it cannot be used, the files of TLS among it.
    """
    async with open_service(settings) as service:
        await report_trust(service.services.trust, service.trust, settings.enrollment.methods)
        tell_exposed(settings)
        await register_policies(service)
        service.tls.context(client_anchors(settings))
        return service.tls


async def serve(settings: Settings, place: Place) -> Ending:
    """Serve until SIGTERM or SIGINT (or SIGHUP), then finish what was begun.

    Returns:
        Why it ended: after a SIGHUP the caller starts again with the settings of then.
    """
    keep_little()
    take_descriptors()
    async with open_service(settings) as service, following(service):
        if place.alone:
            await report_trust(service.services.trust, service.trust, settings.enrollment.methods)
            tell_exposed(settings)
        await register_policies(service)
        tls = LiveTls(service.tls, client_anchors(settings))
        balancers = balancers_of(settings)
        runner = Runner(
            service.app(place.metrics),
            auto_decompress=False,
            access_log=None,
            shutdown_timeout=SHUTDOWN,
            # Longer than the interval: a guest keeps one connection, and the handshake is the costliest part.
            keepalive_timeout=settings.attestation.interval.total_seconds() + 60,
        )
        await runner.setup()
        tasks = background.start(
            service.services,
            lambda: _renew(tls, settings, service.clock),
        )
        tasks.append(asyncio.create_task(background.repeat(EVERY, sweep, "memory.sweep-failed")))
        tasks.append(asyncio.create_task(background.repeat(TRIM_EVERY, trim, "memory.trim-failed")))
        try:
            place.hear()
            for one in place.sockets:
                # A copy: the site closes what it is given, and the queue has to outlive it.
                await Acceptor(runner, one.dup(), runner.app[DOOR], tls.context, balancers).start()
            settle()
            place.ready(service.tls)
            ending = await place.until_told()
            _log.info("service.stopping", ending=ending.value)
            return ending
        finally:
            place.stopping()
            for task in tasks:
                task.cancel()
            await runner.cleanup()
            await asyncio.gather(*tasks, return_exceptions=True)


def _trust_files(settings: Settings) -> TrustFiles:
    return TrustFiles(
        ek=load_trust(settings.trust_anchors),
        ak=load_trust(settings.trust.ak_anchors),
        device=load_trust(settings.trust.device_anchors),
    )
