"""Settings: read once from a TOML file and the environment, then frozen.

Every key is checked: an unknown key, an unknown `VTPM_ATTEST_VERIFIER_*` variable or a wrong type stops the service
at start with the name of the offender, because a misspelt security setting must not be silently ignored.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from verifier.durations import DURATION, Duration
from verifier.errors import VtpmAttestError
from verifier.inventory.errors import InventorySettingError
from verifier.service.methods import parse_methods
from verifier.settings_access import (
    BearerSettings,
    ClientCertificateSettings,
    check_bearer,
    check_client_certificates,
)
from verifier.settings_acme import AcmeSettings, check_acme
from verifier.settings_inventory import SourceSettings, inventory_settings
from verifier.settings_oidc import OidcSettings, check_oidc
from verifier.settings_secrets import SecretSettings
from verifier.settings_section import Section as _Section
from verifier.settings_telemetry import TelemetrySettings
from verifier.settings_transparency import TransparencySettings, check_transparency

ENVIRONMENT_PREFIX: Final = "VTPM_ATTEST_VERIFIER_"
CONFIG_VARIABLE: Final = "VTPM_ATTEST_VERIFIER_CONFIG"
_NOT_SETTINGS: Final = frozenset({CONFIG_VARIABLE})


class SettingsError(VtpmAttestError):
    """The configuration cannot be used; the text names the file or variable and the key."""


class ListenSettings(_Section, frozen=True):
    """Where the service accepts connections."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8443
    """0 takes a free port; `serve` prints which."""
    proxies: tuple[str, ...] = ()
    """Networks of proxies whose `X-Forwarded-For` is believed."""
    proxy_protocol: bool = False
    """Connections from `proxies` begin with the header of the PROXY protocol."""


class TlsSettings(_Section, frozen=True):
    """The server certificate. All unset: an own CA and certificate under `state_dir/tls`, renewed by itself."""

    certificate: Path | None = None
    """PEM chain, leaf first."""
    key: Path | None = None
    """PEM private key of the leaf."""
    ca: Path | None = None
    """PEM certificate agents shall pin; unset: they use their system's roots."""
    hostnames: tuple[str, ...] = ()
    """Further DNS names or addresses of the own certificate, beside `public_url`, localhost and loopback."""


class AttestationSettings(_Section, frozen=True):
    """How often guests attest and how long things live."""

    interval: Duration = Duration(minutes=5)
    """How long after one attestation the next is due."""
    nonce_lifetime: Duration = Duration(minutes=2)
    """How long a nonce is good; one handed out with a verdict lives this much longer than the interval."""
    validity_without_policy: Duration = Duration(minutes=10)
    """How long a verdict stands that no policy judged (it is never affirming)."""
    ratchet: bool = True
    """Ask agents to keep a ratchet in their TPM, by which copies and restored states are found."""
    ratchet_hardware_pause: Duration = Duration(hours=6)
    """How often, at most, a TPM known to be hardware is given a value: each is a write to NV memory that wears out."""


class EnrollmentSettings(_Section, frozen=True):
    """What a machine must bring to be enrolled: every entry must be met, by one of its alternatives."""

    methods: tuple[str, ...] = ("certificate", "token")
    """`certificate`, `ak-certificate`, `device-certificate`, `inventory`, `approve`, `tofu`, `token`; alternatives
    joined by `|`, tried in their order. See `verifier.service.methods`."""
    lifetime: Duration = Duration(minutes=5)
    """How long a guest may take to answer its credential challenge."""
    approval_lifetime: Duration = Duration(days=7)
    """How long an enrolment waits for a person, and how long a guest can still learn what was decided."""
    max_pending: Annotated[int, Meta(ge=1)] = 1000
    """Enrolments that may wait for a person, in all."""
    max_pending_per_address: Annotated[int, Meta(ge=0)] = 100
    """The same, per network address; 0: no bound, as behind a proxy that gives all guests its own."""


class Retention(timedelta):
    """How long superseded evidence is kept: a duration, or `latest` for no longer than need be."""

    @classmethod
    def parse(cls, text: str) -> Retention:
        """Read `30d` or `latest`. Raises `ValueError` otherwise."""
        if text == "latest":
            return cls(0)
        if DURATION.match(text) is None:
            raise ValueError(f"{text!r} is neither a duration such as 30d nor `latest`")
        return cls(seconds=Duration.parse(text).total_seconds())


class HistorySettings(_Section, frozen=True):
    """How long verdicts are kept. Every attester's latest always is."""

    keep: Duration = Duration(days=90)
    """Of older verdicts, at least a day; PostgreSQL drops them by whole weeks."""


class EvidenceSettings(_Section, frozen=True):
    """How long evidence is kept. That of every attester's latest verdict always is."""

    keep: Retention = Retention(days=30)
    """Of older verdicts, counted in whole days; `latest`: until the day after a newer verdict has replaced it."""


class TrustSettings(_Section, frozen=True):
    """Whom else to trust, beside `trust_anchors` and what `attest-verifier anchors` manages."""

    ak_anchors: tuple[Path, ...] = ()
    """Files or folders with CA certificates for AK certificates (clouds)."""
    device_anchors: tuple[Path, ...] = ()
    """Files or folders with CA certificates for IAK and IDevID certificates (makers of machines)."""
    fetch_hosts: tuple[str, ...] = ()
    """Hosts that may be asked for missing issuer certificates; empty: nothing is fetched."""
    fetch_private: bool = False
    """Such hosts may have addresses that are not public."""
    fetch_timeout: Duration = Duration(seconds=5)
    """How long an enrolment may wait for missing issuers."""


class AkCertificateSettings(_Section, frozen=True):
    """The certificates this verifier issues for AKs."""

    issue: Literal["off", "enrolled", "affirming"] = "affirming"
    """To nobody, to every enrolled machine, or only to one whose current verdict is affirming."""
    lifetime: Duration = Duration(hours=24)
    """How long one is good."""


class EarSettings(_Section, frozen=True):
    """Who signs EARs, and what they say of this verifier (`ear_verifier_id`)."""

    developer: str = "vtpm-attest"
    key: str | None = None
    """PEM file with a P-256 private key, or a `pkcs11:` URI; unset: own keys, which `keys rotate` replaces."""
    published_keys: tuple[Path, ...] = ()
    """PEM public keys published beside `key`: those it replaced, or will be replaced by."""


class LogSettings(_Section, frozen=True):
    """Where and how events are logged: to stderr, as JSON lines or for people."""

    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people on a terminal, else JSON."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    access: bool = False
    """Log every request. Off by default: it costs about as much as answering a small one."""
    access_sample: Annotated[int, Meta(ge=1)] = 1
    """With `access`: one of so many requests that were answered well; those that were not are all logged."""


class MetricsSettings(_Section, frozen=True):
    """What Prometheus reads."""

    cache: Duration = Duration(seconds=1)
    """How long one rendering of `/metrics` is handed out again, however many ask."""


class EventSettings(_Section, frozen=True):
    """What happened, for whoever follows it."""

    keep: Duration = Duration(days=7)
    """How long events can be read again, and deliveries looked at; what still waits for a webhook is kept."""
    max_streams: Annotated[int, Meta(ge=1)] = 500
    """Streams (`GET /v1/events`) open at once in one process, before 429."""


class WebhookSettings(_Section, frozen=True):
    """How events are sent to webhooks."""

    allow_http: bool = False
    """Also to `http://` URLs. Events are signed, and not secret there."""
    allow_private: bool = False
    """Also to addresses that are not public: whoever may make webhooks can then reach your network from here."""
    ca: Path | None = None
    """PEM file with CA certificates of receivers, beside the system's."""
    timeout: Duration = Duration(seconds=10)
    """Of one attempt."""
    attempts: Annotated[int, Meta(ge=1, le=50)] = 10
    """Before a delivery is dead."""
    first_retry: Duration = Duration(seconds=5)
    """After the first attempt; four times as long after each further one, spread by half."""
    longest_retry: Duration = Duration(hours=6)
    """No pause is longer."""


class LimitSettings(_Section, frozen=True):
    """Bounds on what one client may cost."""

    wrong_proofs: Annotated[int, Meta(ge=1)] = 5
    """Wrong activation proofs per enrolment and minute before 429."""
    body_timeout: Duration = Duration(seconds=30)
    """How long a client may take to send a request body."""
    large_bodies: Annotated[int, Meta(ge=64)] = 192
    """MiB that large bodies may take together in one process, from their first byte to their answer."""
    slots: Annotated[int, Meta(ge=1)] = 128
    """Enrolments and attestations one process works on at once."""
    queue: Annotated[int, Meta(ge=0)] = 500
    """New machines, and as many known ones, that may wait for a slot; the others get 503 and a time to come back."""
    connections: Annotated[int, Meta(ge=16)] = 1000
    """Connections that one process keeps open; further ones make those close that have been idle longest."""
    most_connections: Annotated[int, Meta(ge=16)] = 4000
    """Connections that one process has open at once, busy ones among them; further ones wait in the kernel."""
    handshakes: Annotated[int, Meta(ge=1)] = 100
    """TLS handshakes that one process has under way at once; further connections wait in the kernel."""
    waiting: Annotated[int, Meta(ge=0)] = 1000
    """Calls that may wait for another verdict (`?wait=`) at once in one process."""
    calls_per_identity: Annotated[int, Meta(ge=0)] = 1000
    """Calls a second of one token, subject of an issuer or client certificate, in one process; 0: no bound, here and below."""
    calls_per_tenant: Annotated[int, Meta(ge=0)] = 0
    """Calls a second of all of them in one tenant."""
    calls_per_address: Annotated[int, Meta(ge=0)] = 0
    """Calls a second from one address; all guests behind a NAT or balancer have the same."""
    refusals_per_address: Annotated[int, Meta(ge=0)] = 20
    """Refused credentials a second from one address, before it has to wait with credentials that are not known yet."""
    attestations_per_attester: Annotated[int, Meta(ge=0)] = 120
    """Attestations a minute of one machine."""
    attestations_per_tenant: Annotated[int, Meta(ge=0)] = 0
    """Attestations a second of all machines of one tenant."""
    burst: Duration = Duration(seconds=10)
    """Seconds for which whoever was quiet may save up calls."""


class Settings(_Section, frozen=True):
    """Everything the service is told from outside."""

    state_dir: Path = Path("/var/lib/vtpm-attest")
    """Keys, certificates and (unless `database` says otherwise) the database. Mode 0700."""
    public_url: str = ""
    """How others reach the service; issuer of its EARs. Empty: https://<host>:<port>."""
    database: str = ""
    """SQLAlchemy URL; empty: SQLite in `state_dir`."""
    trust_anchors: tuple[Path, ...] = ()
    """Files or folders with CA certificates (PEM or DER) and CRLs for EK certificates."""
    policies_dir: Path | None = None
    """Folder of policies registered at start: subfolders with `policy.yaml`, or single YAML files."""
    runtime_sets_dir: Path | None = None
    """Folder of the runtime sets that policies name."""
    policy_signers: tuple[Path, ...] = ()
    """PEM public keys (P-256 or Ed25519). When set, every policy must be signed by one of them, stored ones too."""
    default_policy: str | None = None
    """Policy of every attester that was assigned none; unset: their verdict is `none`."""
    inventory: tuple[SourceSettings, ...] = ()
    """Files and vCenters that say which EK is whose; only in the file, as `[[inventory]]`."""
    inventory_max_age: Duration = Duration(minutes=15)
    """How long what a source said last is believed when it can no longer be read."""
    inventory_history: Duration = Duration(days=365)
    """How long what happened to machines is kept; the audit log keeps its own."""
    listen: ListenSettings = ListenSettings()
    tls: TlsSettings = TlsSettings()
    enrollment: EnrollmentSettings = EnrollmentSettings()
    attestation: AttestationSettings = AttestationSettings()
    evidence: EvidenceSettings = EvidenceSettings()
    history: HistorySettings = HistorySettings()
    trust: TrustSettings = TrustSettings()
    ak_certificates: AkCertificateSettings = AkCertificateSettings()
    ear: EarSettings = EarSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    transparency: TransparencySettings = TransparencySettings()
    metrics: MetricsSettings = MetricsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    events: EventSettings = EventSettings()
    webhooks: WebhookSettings = WebhookSettings()
    secrets: SecretSettings = SecretSettings()
    acme: AcmeSettings = AcmeSettings()
    oidc: OidcSettings = OidcSettings()
    bearer: BearerSettings = BearerSettings()
    client_certificates: ClientCertificateSettings = ClientCertificateSettings()

    @property
    def database_url(self) -> str:
        """The database as configured, or SQLite in the state directory."""
        return self.database or f"sqlite:///{self.state_dir.absolute() / 'verifier.db'}"

    @property
    def base_url(self) -> str:
        """The public URL without a trailing slash."""
        return self.public_url.rstrip("/") or f"https://{self.listen.host}:{self.listen.port}"


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings: the file (if any), then `VTPM_ATTEST_VERIFIER_*` over it.

    Arguments:
        path: TOML file; None: the file named by `VTPM_ATTEST_VERIFIER_CONFIG`, or none at all.
        environ: the process environment. `VTPM_ATTEST_VERIFIER_LISTEN_PORT=9443` sets `port` of `[listen]`; lists
            are separated by commas.

    Raises:
        SettingsError: the file is missing or not TOML, a key or variable is unknown, a value is wrong.
    """
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    document = _read(path) if path is not None else {}
    origin = str(path) if path is not None else "the environment"
    _apply_environment(document, environ)
    try:
        settings = msgspec.convert(document, Settings, strict=False, dec_hook=_dec_hook)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{origin}: {error}") from error
    _check(settings, origin)
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error


def _apply_environment(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    known = known_variables()
    for name, value in sorted(environ.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _NOT_SETTINGS:
            continue
        target = known.get(name)
        if target is None:
            raise SettingsError(f"environment: no setting is called {name}")
        section, key, is_list = target
        place = document.setdefault(section, {}) if section else document
        place[key] = [item.strip() for item in value.split(",") if item.strip()] if is_list else value


def known_variables() -> dict[str, tuple[str, str, bool]]:
    """Every environment variable that is a setting: its section, key, and whether it is a list."""
    known: dict[str, tuple[str, str, bool]] = {}
    for field in msgspec.structs.fields(Settings):
        if field.name == "inventory":
            continue  # tables have no place in a variable
        if isinstance(field.type, type) and issubclass(field.type, _Section):
            for inner in msgspec.structs.fields(field.type):
                name = f"{ENVIRONMENT_PREFIX}{field.name}_{inner.name}".upper()
                known[name] = (field.name, inner.name, _is_list(inner.type))
        else:
            known[f"{ENVIRONMENT_PREFIX}{field.name}".upper()] = ("", field.name, _is_list(field.type))
    return known


def _is_list(kind: object) -> bool:
    return str(kind).startswith("tuple[")


def _dec_hook(kind: type[Any], value: object) -> object:
    if kind is Duration and isinstance(value, str):
        return Duration.parse(value)
    if kind is Retention and isinstance(value, str):
        return Retention.parse(value)
    if issubclass(kind, Path) and isinstance(value, str):
        return Path(value)
    expected = "a duration such as 90s, 5m, 24h or 30d" if issubclass(kind, timedelta) else "a string"
    raise ValueError(f"expected {expected}, got {value!r}")


def _check(settings: Settings, origin: str) -> None:
    try:
        parse_methods(settings.enrollment.methods)
    except ValueError as error:
        listed = list(settings.enrollment.methods)
        raise SettingsError(f"{origin}: enrollment.methods = {listed} {error}") from error
    try:
        inventory_settings(settings.inventory)
    except InventorySettingError as error:
        raise SettingsError(f"{origin}: inventory: {error}") from error
    if (settings.tls.certificate is None) != (settings.tls.key is None):
        raise SettingsError(f"{origin}: tls.certificate and tls.key go together")
    checks: tuple[tuple[str, Callable[[], None]], ...] = (
        ("listen", lambda: _check_listen(settings.listen)),
        ("acme", lambda: check_acme(settings.acme)),
        ("oidc", lambda: check_oidc(settings.oidc)),
        ("transparency", lambda: check_transparency(settings.transparency)),
        ("bearer", lambda: check_bearer(settings.bearer)),
        ("client_certificates", lambda: check_client_certificates(settings.client_certificates)),
    )
    for section, check in checks:
        try:
            check()
        except ValueError as error:
            raise SettingsError(f"{origin}: {section}.{error}") from error
    if settings.public_url and not re.match(r"^https?://[^/\s]+", settings.public_url):
        raise SettingsError(f"{origin}: public_url {settings.public_url!r} is not an http(s) URL")
    endpoint = settings.telemetry.endpoint
    if endpoint and not re.match(r"^https?://[^/\s]+", endpoint):
        raise SettingsError(f"{origin}: telemetry.endpoint {endpoint!r} is not an http(s) URL")


def _check_listen(settings: ListenSettings) -> None:
    for network in settings.proxies:
        try:
            ip_network(network)
        except ValueError as error:
            raise ValueError(f"proxies: {error}") from error
    if settings.proxy_protocol and not settings.proxies:
        raise ValueError("proxy_protocol: whose word counts is not said; set listen.proxies")


def environment() -> Mapping[str, str]:
    """The process environment; the one place that reads it."""
    return os.environ
