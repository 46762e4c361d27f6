"""`attestctl inventory`: what the operator's sources say of machines and their endorsement keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cyclopts import App
from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.cli.fleet import Where

inventory = App(
    name="inventory",
    help="Inventories (files, vCenters): how they stand, their machines, what happened to those.",
    help_format="plaintext",
)
_SAYS: Final = {True: "yes", False: "no", None: "?"}


@inventory.default
def shown(*, where: Where | None = None) -> int:
    """Show how the inventories stand, as `attestctl inventory status` does.

    Example:
        attestctl inventory --json
    """
    return status(where=where)


@inventory.command
def status(*, where: Where | None = None) -> int:
    """Show when every inventory was last current, and what is wrong with it. Exit code: 1 when one is stale.

    Example:
        attestctl inventory status --server https://verifier.example:8443 --ca ca.pem
    """
    at = where or Where()
    return _show(at, at.ask(lambda remote: remote.get("/v1/inventory")))


@inventory.command
def sync(*, where: Where | None = None) -> int:
    """Read files now, and have vCenters read anew with their next answer; then show how they stand.

    Example:
        attestctl inventory sync
    """
    at = where or Where()
    return _show(at, at.ask(lambda remote: remote.post("/v1/inventory/sync", {})))


@inventory.command
def machines(
    *,
    search: str | None = None,
    source: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
    where: Where | None = None,
) -> int:
    """List machines as the inventories describe them.

    Examples:
        attestctl inventory machines --search web-

        attestctl inventory machines --source north --json

    Args:
        search: part of a name, id, UUID, EK fingerprint (hex) or label (KEY=VALUE).
        source: only of this inventory.
        limit: rows of one page.
        cursor: where to go on; the last line of a full page names it.
    """
    at = where or Where()
    query = {"search": search, "source": source, "limit": limit, "cursor": cursor}
    reply = at.ask(lambda remote: remote.get("/v1/inventory/machines", query))
    if at.json:
        output.print_json(reply)
        return 0
    if not reply["machines"]:
        output.out.print("no machine is listed like that\n[dim]next: attestctl inventory status[/]")
        return 0
    table = _table("key", "name", "SMBIOS UUID", "EKs", "vTPM", "Secure Boot", "notes")
    for item in reply["machines"]:
        table.add_row(
            escape(item["key"]),
            escape(item["name"]),
            item.get("smbios_uuid", ""),
            "\n".join(one[:16] for one in item["ek_sha256"]),
            _SAYS[item.get("has_vtpm")],
            _SAYS[item.get("secure_boot")],
            escape("\n".join(_notes(item))),
        )
    output.out.print(table)
    if reply.get("cursor"):
        output.err.print(f"[dim]more: --cursor {escape(reply['cursor'])}[/]")
    return 0


@inventory.command
def events(*, since: str | None = None, where: Where | None = None) -> int:
    """List clones, changed UUIDs, replaced vTPMs and reverts that the inventories told of, oldest first.

    Example:
        attestctl inventory events --json

    Args:
        since: cursor of an earlier answer; the last line names the next.
    """
    at = where or Where()
    reply = at.ask(lambda remote: remote.get("/v1/inventory/events", {"since": since}))
    if at.json:
        output.print_json(reply)
        return 0
    table = _table("when", "what", "machine", "copy of", "before", "after")
    for item in reply["events"]:
        table.add_row(
            output.when(item["at"]),
            item["kind"],
            escape(_name(item["machine"])),
            escape(_name(item["origin"])) if "origin" in item else "",
            escape(_short(item.get("before"))),
            escape(_short(item.get("after"))),
        )
    output.out.print(table if reply["events"] else "nothing happened that is known of")
    if reply.get("cursor"):
        output.err.print(f"[dim]next time: --since {escape(reply['cursor'])}[/]")
    return 0


def _show(at: Where, reply: Mapping[str, Any]) -> int:
    stale = any(source["stale"] for source in reply["sources"])
    if at.json:
        output.print_json(reply)
    elif reply["sources"]:
        table = _table("inventory", "state", "last current", "machines", "problem")
        for source in reply["sources"]:
            table.add_row(
                escape(source["name"]),
                _state(source),
                output.when(source.get("synced_at")),
                str(source["machines"]),
                escape("\n".join(filter(None, [source.get("problem"), *source["warnings"]]))),
            )
        output.out.print(table)
    else:
        output.out.print(
            "no inventory is configured\n[dim]next: \\[\\[inventory]] in the verifier's settings, docs/inventory.md[/]"
        )
    return 1 if stale else 0


def _state(source: Mapping[str, Any]) -> str:
    if source["stale"]:
        return "[bold red]stale[/]"
    return "[yellow]failing[/]" if source.get("problem") else "[green]current[/]"


def _notes(item: Mapping[str, Any]) -> list[str]:
    notes = [f"{key}={value}" for key, value in sorted(item["labels"].items())]
    notes += ["template"] if item.get("template") else []
    notes += [f"{len(item['snapshots'])} snapshots"] if item["snapshots"] else []
    notes += ["its inventory is stale"] if item["stale"] else []
    return [*notes, *item["problems"]]


def _name(machine: Mapping[str, Any]) -> str:
    return f"{machine['name']} ({machine['key']})"


def _short(text: str | None) -> str:
    """UUIDs whole, fingerprints by their first digits."""
    return "\n".join(one if "-" in one else one[:16] for one in (text or "").split(","))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
