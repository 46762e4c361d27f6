"""`attest-verifier`: run the service, and what an operator does on its machine."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.table import Column, Table

from verifier import main as root
from verifier.cli.examples import show_examples
from verifier.errors import EvidenceError, NotFoundError, VtpmAttestError
from verifier.keys.tls import TlsFiles
from verifier.logs import configure_logs
from verifier.ports import DEFAULT_TENANT, Scope, TokenRecord
from verifier.settings import Duration, Settings, SettingsError, environment, load_settings
from verifier.web.app import ROUTES
from verifier.web.openapi import build_document

EXIT_USAGE: Final = 64
EXIT_INPUT: Final = 65
EXIT_UNAVAILABLE: Final = 69
EXIT_CONFIG: Final = 78

T = TypeVar("T")

_HELP: Final = """Verify TPM attestations of machines, and tell others what they are worth.

Settings: a TOML file (--config, or VTPM_ATTEST_VERIFIER_CONFIG) under
VTPM_ATTEST_VERIFIER_<KEY> variables."""
_EXAMPLES: Final = """Examples:

    attest-verifier serve --config /etc/vtpm-attest/verifier.toml
    attest-verifier tokens create --scope join --uses 10 --expires 24h
    attest-verifier tokens create --scope relying-party --json
    attest-verifier keys rotate --overlap 24h"""
app: Final = App(
    name="attest-verifier",
    help=_HELP,
    help_epilogue=_EXAMPLES,
    version=f"attest-verifier {root.VERSION}",
    help_format="plaintext",
)
db: Final = App(name="db", help="The database.", help_epilogue="")
keys: Final = App(name="keys", help="Signing keys of attestation results (EAR).", help_epilogue="")
tokens: Final = App(
    name="tokens", help="Join tokens for machines, API tokens for everyone else.", help_epilogue=""
)
for _group in (db, keys, tokens):
    app.command(_group)

Config = Annotated[Path | None, Parameter(name="--config", help="TOML file with settings.")]
Json = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON document and nothing else.")
]


@app.command
def serve(*, config: Config = None, workers: int = 1) -> None:
    """Serve until SIGTERM, over HTTPS.

    At first start keys, a CA with a server certificate (unless the settings name one) and the database are
    made in the state directory.

    Example:
        attest-verifier serve --config /etc/vtpm-attest/verifier.toml

    Args:
        config: TOML file with settings.
        workers: processes; only 1 for now.
    """
    if workers != 1:
        _fail(EXIT_USAGE, f"--workers {workers}: this version serves with one process; leave the option out")
    settings = _settings(config, quiet=False)
    _guarded(lambda: _run(root.serve(settings, _announce)))


@db.command(name="upgrade")
def db_upgrade(*, config: Config = None) -> None:
    """Create the database, or bring it up to date. `serve` does so by itself.

    Example:
        attest-verifier db upgrade --config /etc/vtpm-attest/verifier.toml
    """
    settings = _settings(config)
    _guarded(lambda: root.upgrade_database(settings))
    _say(f"database is up to date: {_without_password(settings.database_url)}")


@keys.command(name="rotate")
def keys_rotate(*, config: Config = None, overlap: str = "24h", as_json: Json = False) -> None:
    """Sign with a new key from now on; a running service notices by itself.

    Example:
        attest-verifier keys rotate --overlap 24h

    Args:
        config: TOML file with settings.
        overlap: how long the old key stays in the JWK Set, at least the longest validity of a verdict.
        as_json: print one JSON document and nothing else.
    """
    settings = _settings(config)
    span = _duration("--overlap", overlap)
    new, old = _guarded(lambda: root.rotate_keys(settings, span))
    if as_json:
        retiring = [{"kid": key.kid, "retire_at": _time(key.retire_at)} for key in old]
        _print_json({"kid": new.kid, "retiring": retiring})
        return
    _say(f"new signing key {new.kid}")
    for key in old:
        _say(f"old key {key.kid} stays published until {_time(key.retire_at)}")


@tokens.command(name="create")
def tokens_create(
    *,
    scope: Annotated[list[Scope], Parameter(negative="")],
    label: str = "",
    expires: str | None = None,
    uses: int | None = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a token and print its secret, this once.

    Example:
        attest-verifier tokens create --scope join --uses 1 --label web-17
        attest-verifier tokens create --scope dashboard --scope relying-party

    Args:
        scope: what it may do; `join` stands alone, the others combine.
        label: what it is for, shown in listings and logs.
        expires: how long it is good: 90s, 15m, 24h, 30d. Without it a join token lives 24h, others for ever.
        uses: how many machines may join with it; without it any number.
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    settings = _settings(config)
    text = expires if expires is not None else ("24h" if Scope.JOIN in scope else None)
    lifetime = None if text is None else _duration("--expires", text)
    if uses is not None and uses < 1:
        _fail(EXIT_USAGE, f"--uses {uses}: at least 1")

    async def create() -> tuple[TokenRecord, str]:
        async with root.open_service(settings) as service:
            return await service.services.tokens.create(
                tenant=DEFAULT_TENANT,
                scopes=frozenset(scope),
                label=label,
                lifetime=lifetime,
                uses=uses,
                actor="cli",
            )

    record, secret = _guarded(lambda: _run(create()))
    if as_json:
        _print_json({"token": secret, **_token(record)})
        return
    _out(secret)  # alone on stdout, so that a script can take it
    _say(f"token {record.id}, good {_until(record)}; this is the only time its secret is shown")
    if Scope.JOIN in record.scopes:
        _say(f"on the machine:  attest-agent enroll --server {settings.base_url} --token {secret}")


@tokens.command(name="list")
def tokens_list(*, config: Config = None, as_json: Json = False) -> None:
    """List tokens, without their secrets.

    Example:
        attest-verifier tokens list --json
    """
    settings = _settings(config)

    async def read() -> tuple[TokenRecord, ...]:
        async with root.open_service(settings) as service:
            return await service.services.tokens.list(DEFAULT_TENANT)

    records = _guarded(lambda: _run(read()))
    if as_json:
        _print_json([_token(record) for record in records])
        return
    table = Table(Column("id", no_wrap=True), "scopes", "label", "good", "uses left")
    for record in records:
        uses = "" if record.uses_left is None else str(record.uses_left)
        scopes = ", ".join(sorted(record.scopes))
        table.add_row(record.id, scopes, record.label, _until(record), uses)
    Console().print(table)


@tokens.command(name="revoke")
def tokens_revoke(token_id: str, /, *, config: Config = None) -> None:
    """Make a token worthless. A running service knows within 5 seconds.

    Example:
        attest-verifier tokens revoke tok-1f2e3d4c

    Args:
        token_id: id as `tokens list` shows it (`tok-…`).
        config: TOML file with settings.
    """
    settings = _settings(config)

    async def revoke() -> None:
        async with root.open_service(settings) as service:
            await service.services.tokens.revoke(DEFAULT_TENANT, token_id, "cli")

    _guarded(lambda: _run(revoke()))
    _say(f"token {token_id} is revoked")


@app.command
def openapi(*, config: Config = None) -> None:
    """Print the OpenAPI 3.1 document of the API.

    Example:
        attest-verifier openapi > openapi.json
    """
    _out(json.dumps(build_document(ROUTES, root.VERSION, _settings(config).base_url), indent=2))


show_examples(app)


def main() -> None:
    """Entry point of `attest-verifier`."""
    try:
        app(exit_on_error=False)
    except CycloptsError:  # printed already, with the option it is about
        raise SystemExit(EXIT_USAGE) from None


def _announce(address: str, tls: TlsFiles) -> None:
    _out(f"vtpm-attest verifier {root.VERSION} listening on {address}")
    fingerprint = tls.ca_fingerprint()
    if fingerprint is not None:
        _out(f"CA {tls.ca} SHA-256 {fingerprint.hex()}")


def _settings(config: Path | None, *, quiet: bool = True) -> Settings:
    """The settings; `quiet`: a command that answers and ends logs nothing but errors."""
    try:
        settings = load_settings(config, environment())
    except SettingsError as error:
        _fail(EXIT_CONFIG, str(error))
    configure_logs(settings.log.format, "error" if quiet else settings.log.level)
    return settings


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def _guarded(action: Callable[[], T]) -> T:
    """Run it; what goes wrong on purpose is one line on stderr and an exit code, not a traceback."""
    try:
        return action()
    except (EvidenceError, NotFoundError) as error:
        _fail(EXIT_INPUT, str(error))
    except VtpmAttestError as error:
        _fail(EXIT_UNAVAILABLE, str(error))
    except OSError as error:
        _fail(EXIT_UNAVAILABLE, f"{error.strerror or error}")


def _fail(code: int, text: str) -> NoReturn:
    _say(f"attest-verifier: {text}")
    raise SystemExit(code)


def _duration(option: str, text: str) -> timedelta:
    try:
        return Duration.parse(text)
    except ValueError as error:
        _fail(EXIT_USAGE, f"{option}: {error}")


def _token(record: TokenRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "scopes": sorted(record.scopes),
        "label": record.label,
        "created_at": _time(record.created_at),
        "expires_at": _time(record.expires_at) or None,
        "uses_left": record.uses_left,
        "revoked_at": _time(record.revoked_at) or None,
    }


def _until(record: TokenRecord) -> str:
    if record.revoked_at is not None:
        return f"revoked {_time(record.revoked_at)}"
    return "for ever" if record.expires_at is None else f"until {_time(record.expires_at)}"


def _time(moment: Any) -> str:  # noqa: ANN401 - datetime or None
    return "" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://…@{tail}" if at else url


def _print_json(document: object) -> None:
    _out(json.dumps(document, indent=2))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _out(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
