"""`attest-verifier db`: the database's schema, and what takes its room."""

from __future__ import annotations

from typing import Final

from cyclopts import App
from rich.table import Column, Table

from verifier import main as root
from verifier.cli import host, output
from verifier.ports_history import StoredTable

app: Final = App(name="db", help="The database.", help_epilogue="")
_STEP: Final = 1024


@app.command(name="upgrade")
def db_upgrade(*, config: host.Config = None, as_json: host.Json = False) -> None:
    """Create the database, or bring it up to date. `serve` does so by itself.

    Example:
        attest-verifier db upgrade --config /etc/vtpm-attest/verifier.toml
    """
    settings = host.read_settings(config)
    host.guarded(lambda: root.upgrade_database(settings))
    where = _without_password(settings.database_url)
    if as_json:
        host.print_json({"database": where})
    else:
        host.say(f"database is up to date: {where}")


@app.command(name="status")
def db_status(*, config: host.Config = None, as_json: host.Json = False) -> None:
    """Show the schema's revision and what each table takes. Changes nothing; a service may be running.

    Example:
        attest-verifier db status --json
    """
    settings = host.read_settings(config)
    status = host.guarded(lambda: host.run(root.database_status(settings)))
    where = _without_password(settings.database_url)
    if as_json:
        tables = [_document(one) for one in status.tables]
        host.print_json({"database": where, "revision": status.revision, "tables": tables})
        return
    total = sum(one.size for one in status.tables)
    host.say(f"{where}, revision {status.revision}, {_size(total)} in {len(status.tables)} tables")
    table = Table(
        Column("table", no_wrap=True),
        Column("rows", justify="right"),
        Column("size", justify="right"),
        "verdicts of",
    )
    for one in status.tables:
        table.add_row(one.name, f"{one.rows:,}", _size(one.size), _span(one))
    output.out.print(table)


def _document(one: StoredTable) -> dict[str, object]:
    return {
        "name": one.name,
        "partition_of": one.partition_of,
        "rows": one.rows,
        "bytes": one.size,
        "begins": host.time_text(one.begins) or None,
        "ends": host.time_text(one.ends) or None,
    }


def _size(size: int) -> str:
    value, units = float(size), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while value >= _STEP and (larger := next(units, None)) is not None:
        value, unit = value / _STEP, larger
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"


def _span(one: StoredTable) -> str:
    if one.ends is None:
        return ""
    begins = "" if one.begins is None else f"{one.begins:%Y-%m-%d} "
    return f"{begins}to {one.ends:%Y-%m-%d}"


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://…@{tail}" if at else url
