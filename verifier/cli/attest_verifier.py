"""`attest-verifier`: run the service, and what an operator does on its machine."""

from __future__ import annotations

import json
from typing import Annotated, Final

from cyclopts import App, CycloptsError, Parameter
from rich.table import Column, Table

from verifier import main as root
from verifier.cli import acme, anchors, database, host, output, secret_keys, serving
from verifier.cli.completion import add_completion
from verifier.cli.examples import show_examples
from verifier.composition import VERSION
from verifier.ports import DEFAULT_TENANT, Scope, TokenRecord
from verifier.web.app import ROUTES
from verifier.web.openapi import build_document

_HELP: Final = """Verify TPM attestations of machines, and tell others what they are worth.

Settings: a TOML file (--config, or VTPM_ATTEST_VERIFIER_CONFIG) under
VTPM_ATTEST_VERIFIER_<KEY> variables."""
_EXAMPLES: Final = """Examples:

    attest-verifier serve --config /etc/vtpm-attest/verifier.toml
    attest-verifier tokens create --scope join --uses 10 --expires 24h
    attest-verifier tokens create --scope relying-party --json
    attest-verifier anchors import download.zip --set vcenter-1 --dry-run
    attest-verifier keys rotate --overlap 24h"""
app: Final = App(
    name="attest-verifier",
    help=_HELP,
    help_epilogue=_EXAMPLES,
    version=f"attest-verifier {VERSION}",
    help_format="plaintext",
)
keys: Final = App(
    name="keys",
    help="Signing keys of attestation results (EAR) and of the transparency log.",
    help_epilogue="",
)
tokens: Final = App(
    name="tokens", help="Join tokens for machines, API tokens for everyone else.", help_epilogue=""
)
for _group in (database.app, keys, tokens, anchors.app, secret_keys.app):
    app.command(_group)


@app.command
def serve(*, config: host.Config = None, workers: int = 1) -> None:
    """Serve until SIGTERM, over HTTPS.

    At first start keys, a CA with a server certificate (unless the settings name one) and the database are
    made in the state directory.

    Example:
        attest-verifier serve --config /etc/vtpm-attest/verifier.toml
        attest-verifier serve --workers 4

    Args:
        config: TOML file with settings.
        workers: processes that share the address, about one for each core. SIGHUP takes up new settings without a
            pause; SIGTERM lets requests end first.
    """
    serving.serve(config, workers)


app.command(acme.acme)


@keys.command(name="rotate")
def keys_rotate(*, config: host.Config = None, overlap: str = "24h", as_json: host.Json = False) -> None:
    """Sign with a new key from now on; a running service notices by itself.

    Example:
        attest-verifier keys rotate --overlap 24h

    Args:
        config: TOML file with settings.
        overlap: how long the old key stays in the JWK Set, at least the longest validity of a verdict.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    span = host.duration("--overlap", overlap)
    new, old = host.guarded(lambda: root.rotate_keys(settings, span))
    if as_json:
        retiring = [{"kid": key.kid, "retire_at": host.time_text(key.retire_at)} for key in old]
        host.print_json({"kid": new.kid, "retiring": retiring})
        return
    host.say(f"new signing key {new.kid}")
    for key in old:
        host.say(f"old key {key.kid} stays published until {host.time_text(key.retire_at)}")


@keys.command(name="log")
def keys_log(*, config: host.Config = None, as_json: host.Json = False) -> None:
    """Print the public keys of the transparency log, for auditors and witnesses.

    Give them out by another way than this verifier: they are what it is checked with.

    Example:
        attest-verifier keys log

    Args:
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    found = host.guarded(lambda: root.log_keys_of(settings))
    if as_json:
        host.print_json([{"key": one.key, "retire_at": host.time_text(one.retire_at)} for one in found])
        return
    for one in found:
        host.out(one.key)


@keys.command(name="rotate-log")
def keys_rotate_log(*, config: host.Config = None, overlap: str = "30d", as_json: host.Json = False) -> None:
    """Sign the transparency log with a new key; the old one signs beside it for a while.

    Example:
        attest-verifier keys rotate-log --overlap 30d

    Args:
        config: TOML file with settings.
        overlap: how long both sign: until then auditors and witnesses need the new public key. `1m`, the least, where
            the old one was stolen.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    span = host.duration("--overlap", overlap)
    new, old = host.guarded(lambda: root.rotate_log_keys(settings, span))
    if as_json:
        retiring = [{"key": one.key, "retire_at": host.time_text(one.retire_at)} for one in old]
        host.print_json({"key": new.key, "retiring": retiring})
        return
    host.say(f"new key of the log {new.key}")
    for one in old:
        host.say(f"old key {one.key} signs beside it until {host.time_text(one.retire_at)}")


@tokens.command(name="create")
def tokens_create(
    *,
    scope: Annotated[list[Scope], Parameter(negative="")],
    label: str = "",
    expires: str | None = None,
    uses: int | None = None,
    tenant: host.Tenant = DEFAULT_TENANT,
    config: host.Config = None,
    as_json: host.Json = False,
) -> None:
    """Make a token and print its secret, this once.

    Example:
        attest-verifier tokens create --scope join --uses 1 --label web-17
        attest-verifier tokens create --scope dashboard --scope relying-party
        attest-verifier tokens create --scope admin --tenant globex

    Args:
        scope: what it may do; `join` stands alone, the others combine.
        label: what it is for, shown in listings and logs.
        expires: how long it is good: 90s, 15m, 24h, 30d. Without it a join token lives 24h, others for ever.
        uses: how many machines may join with it; without it any number.
        tenant: whose token it is. A tenant begins with its first token; over the API an admin makes tokens of its own tenant alone.
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    text = expires if expires is not None else ("24h" if Scope.JOIN in scope else None)
    lifetime = None if text is None else host.duration("--expires", text)
    if uses is not None and uses < 1:
        host.fail(host.EXIT_USAGE, f"--uses {uses}: at least 1")

    record, secret = host.ask(
        settings,
        lambda service: service.services.tokens.create(
            tenant=tenant,
            scopes=frozenset(scope),
            label=label,
            lifetime=lifetime,
            uses=uses,
            actor="cli",
        ),
    )
    if as_json:
        host.print_json({"token": secret, **_token(record)})
        return
    host.out(secret)  # alone on stdout, so that a script can take it
    host.say(f"token {record.id}, good {_until(record)}; this is the only time its secret is shown")
    if Scope.JOIN in record.scopes:
        host.say(f"on the machine:  attest-agent enroll --server {settings.base_url} --token {secret}")


@tokens.command(name="list")
def tokens_list(
    *, tenant: host.Tenant = DEFAULT_TENANT, config: host.Config = None, as_json: host.Json = False
) -> None:
    """List tokens, without their secrets.

    Example:
        attest-verifier tokens list --json
        attest-verifier tokens list --tenant globex

    Args:
        tenant: whose tokens.
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    records = host.ask(settings, lambda service: service.services.tokens.list(tenant))
    if as_json:
        host.print_json([_token(record) for record in records])
        return
    table = Table(Column("id", no_wrap=True), "scopes", "label", "good", "uses left")
    for record in records:
        uses = "" if record.uses_left is None else str(record.uses_left)
        scopes = ", ".join(sorted(record.scopes))
        table.add_row(record.id, scopes, record.label, _until(record), uses)
    output.out.print(table)
    if not records:
        host.say(f"tenant {tenant!r} has no tokens")


@tokens.command(name="revoke")
def tokens_revoke(
    token_id: str,
    /,
    *,
    tenant: host.Tenant = DEFAULT_TENANT,
    config: host.Config = None,
    as_json: host.Json = False,
) -> None:
    """Make a token worthless. A running service knows within 5 seconds.

    Example:
        attest-verifier tokens revoke tok-1f2e3d4c

    Args:
        token_id: id as `tokens list` shows it (`tok-…`).
        tenant: whose token it is.
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    host.ask(settings, lambda service: service.services.tokens.revoke(tenant, token_id, "cli"))
    if as_json:
        host.print_json({"id": token_id, "revoked": True})
    else:
        host.say(f"token {token_id} is revoked")


@app.command
def openapi(*, config: host.Config = None) -> None:
    """Print the OpenAPI 3.1 document of the API.

    Example:
        attest-verifier openapi > openapi.json
    """
    host.out(json.dumps(build_document(ROUTES, VERSION, host.read_settings(config).base_url), indent=2))


add_completion(app)
show_examples(app)


def main() -> None:
    """Entry point of `attest-verifier`."""
    try:
        app(exit_on_error=False)
    except CycloptsError:  # printed already, with the option it is about
        raise SystemExit(host.EXIT_USAGE) from None


def _token(record: TokenRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "tenant": record.tenant,
        "scopes": sorted(record.scopes),
        "label": record.label,
        "created_at": host.time_text(record.created_at),
        "expires_at": host.time_text(record.expires_at) or None,
        "uses_left": record.uses_left,
        "revoked_at": host.time_text(record.revoked_at) or None,
    }


def _until(record: TokenRecord) -> str:
    if record.revoked_at is not None:
        return f"revoked {host.time_text(record.revoked_at)}"
    return "for ever" if record.expires_at is None else f"until {host.time_text(record.expires_at)}"
