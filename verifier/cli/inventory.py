"""`attestctl inventory`: what the operator's sources say of machines and their endorsement keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cyclopts import App
from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.cli.fleet import Where
from verifier.cli.remote import path_of

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
    output.more(reply)
    return 0


@inventory.command
def vm(uuid: str, *, where: Where | None = None) -> int:
    """Show the machine with this UUID: its keys and since when, who speaks with them, what happened to it.

    Example:
        attestctl inventory vm 4c4c4544-0042-3510-8052-b4c04f4b3132

    Args:
        uuid: vCenter's instance UUID, or the SMBIOS UUID in either spelling.
    """
    at = where or Where()
    found = at.ask(lambda remote: remote.get(f"/v1/inventory/machines{path_of(uuid)}"))
    told = at.ask(lambda remote: remote.get("/v1/inventory/events", {"uuid": uuid, "limit": 20}))
    if at.json:
        output.print_json({**found, "events": told["events"]})
        return 0
    for detail in found["machines"]:
        output.out.print(f"[bold]{escape(_name(detail['machine']))}[/]")
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for label, text in _described(detail):
            table.add_row(label, escape(text))
        output.out.print(table)
        output.out.print()
    if told["events"]:
        output.out.print(_events_table(told["events"]))
    return 0


@inventory.command
def guests(
    *,
    outcome: str | None = None,
    unmatched: bool = False,
    limit: int = 100,
    cursor: str | None = None,
    where: Where | None = None,
) -> int:
    """List enrolled guests with what the inventories say of each now.

    Examples:
        attestctl inventory guests --unmatched

        attestctl inventory guests --outcome ek-on-several-machines --json

    Args:
        outcome: only these: match, ek-only, ek-of-another-machine, ek-on-several-machines, uuid-known-ek-unknown,
            ek-not-listed, unknown or inventory-stale.
        unmatched: only those that are no machine of the inventories, or not for sure.
        limit: rows of one page.
        cursor: where to go on; the last line of a full page names it.
    """
    at = where or Where()
    query = {"outcome": outcome, "matched": "no" if unmatched else None, "limit": limit, "cursor": cursor}
    reply = at.ask(lambda remote: remote.get("/v1/inventory/guests", query))
    if at.json:
        output.print_json(reply)
        return 0
    table = _table("attester", "hostname", "outcome", "inventory says")
    for item in reply["guests"]:
        guest, said = item["attester"], item["inventory"]
        table.add_row(
            guest["id"], escape(guest.get("hostname") or ""), said["outcome"], escape(said["explanation"])
        )
    output.out.print(table if reply["guests"] else "no guest is like that")
    output.more(reply)
    return 0


@inventory.command
def events(
    *,
    uuid: str | None = None,
    kind: str | None = None,
    before: int | None = None,
    limit: int = 100,
    where: Where | None = None,
) -> int:
    """List what happened to machines, newest first.

    Examples:
        attestctl inventory events --kind snapshot-reverted

        attestctl inventory events --uuid 4c4c4544-0042-3510-8052-b4c04f4b3132 --json

    Args:
        uuid: only of machines that have this instance UUID or SMBIOS UUID now.
        kind: added, removed, cloned, instance-uuid-changed, uuid-changed, snapshot-reverted or vtpm-replaced.
        before: only older ones; the last line of a full page names it.
        limit: rows of one page.
    """
    at = where or Where()
    query = {"uuid": uuid, "kind": kind, "before": before, "limit": limit}
    reply = at.ask(lambda remote: remote.get("/v1/inventory/events", query))
    if at.json:
        output.print_json(reply)
        return 0
    output.out.print(
        _events_table(reply["events"]) if reply["events"] else "nothing happened that is known of"
    )
    if reply.get("before"):
        output.err.print(f"[dim]more: --before {reply['before']}[/]")
    return 0


def _events_table(events: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("when", "what", "machine", "copy of", "before", "after")
    for item in events:
        table.add_row(
            output.when(item["at"]),
            item["kind"],
            escape(_name(item["machine"])),
            escape(_name(item["origin"])) if "origin" in item else "",
            escape(_short(item.get("before"))),
            escape(_short(item.get("after"))),
        )
    return table


def _described(detail: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    machine = detail["machine"]
    yield "SMBIOS UUID", machine.get("smbios_uuid") or "not known"
    yield "instance UUID", machine.get("instance_uuid") or "not known"
    yield "vTPM", _SAYS[machine.get("has_vtpm")]
    yield "Secure Boot", f"{_SAYS[machine.get('secure_boot')]} (as configured)"
    yield "encrypted by", machine.get("encrypted_key_id") or "not known"
    for key in machine["ek_sha256"]:
        yield "EK (SHA-256)", key
    if machine["ek_sha256"]:
        yield "with these EKs", f"since {output.when(machine.get('ek_since'))} or earlier"
    for snapshot in machine["snapshots"]:
        current = ", its present state descends from it" if snapshot["current"] else ""
        yield "snapshot", f"{snapshot['name']}, {output.when(snapshot['created_at'])}{current}"
    for attester in detail["attesters"]:
        yield "attester", f"{attester['id']} {attester.get('hostname', '')} ({attester['lifecycle']})"
    if not detail["attesters"]:
        yield "attester", "none has one of these EKs"
    for note in _notes(machine):
        yield "note", note


def _show(at: Where, reply: Mapping[str, Any]) -> int:
    stale = any(source["stale"] for source in reply["sources"])
    if at.json:
        output.print_json(reply)
    elif reply["sources"]:
        table = _table("inventory", "where", "state", "last current", "machines", "with vTPM", "problem")
        for source in reply["sources"]:
            table.add_row(
                escape(source["name"]),
                escape(source["place"]),
                _state(source),
                output.when(source.get("synced_at")),
                str(source["machines"]),
                str(source["with_vtpm"]),
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
    if source.get("progress"):
        return f"[cyan]reading {source['progress']['done']}/{source['progress']['total']}[/]"
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
