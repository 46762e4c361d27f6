"""`attest-verifier anchors`: whom the verifier believes, managed beside a running service."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import App, Parameter
from rich.markup import escape
from rich.table import Table

from verifier.cli import host, output
from verifier.crypto.anchors import AnchorCollection, TrustAnchors
from verifier.inventory.anchor_files import read_anchors
from verifier.main import Service
from verifier.ports import DEFAULT_TENANT
from verifier.ports_trust import AnchorPurpose
from verifier.service.anchor_import import ImportMode, ImportRequest
from verifier.web import anchor_messages as m

_Flag = Annotated[bool, Parameter(negative="", show_default=False)]
_EXIT_SOME: Final = 2
_ACTOR: Final = "cli"
_SHOWN: Final = 16
"""Hexadecimal digits of a fingerprint in tables: enough for `anchors remove`."""
_IGNORED: Final = 5

app: Final = App(
    name="anchors",
    help="CA certificates and revocation lists by which TPMs are believed. A running service sees a change at once.",
    help_epilogue="",
)


@app.command(name="import")
def import_(
    paths: list[Path],
    /,
    *,
    set_name: Annotated[str | None, Parameter(name="--set")] = None,
    purpose: Annotated[list[AnchorPurpose] | None, Parameter(name="--for", negative="")] = None,
    add: _Flag = False,
    replace: _Flag = False,
    dry_run: _Flag = False,
    config: host.Config = None,
    as_json: host.Json = False,
) -> None:
    """Trust the CA certificates in files, folders or archives, and honour the revocation lists beside them.

    Reads PEM, DER, PKCS#7, VMCA's download.zip (or its unpacked lin/ or win/ folder) and Microsoft's
    TrustedTpm.cab. What cannot be an anchor is named with its reason and left out. An archive proves nothing of
    its origin: check where it comes from first.

    Example:
        attest-verifier anchors import download.zip --set vcenter-1 --dry-run
        attest-verifier anchors import TrustedTpm.cab --set vendors
        attest-verifier anchors import fresh-crls.pem --set vcenter-1 --add
        attest-verifier anchors import gce-ak-root.pem --set gce --for ak

    Args:
        paths: what to read.
        set_name: name of the set; without it, the name of the first file without its ending.
        purpose: what the anchors may vouch for: `ek` (without this option), `ak` (clouds' AK certificates) or
            `device` (IAK and IDevID certificates); may be given several times.
        add: keep what the set has already.
        replace: exchange the set.
        dry_run: say what would change, and change nothing.
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    if add and replace:
        host.fail(host.EXIT_USAGE, "--add keeps what the set has, --replace drops it: choose one")
    mode = ImportMode.ADD if add else ImportMode.REPLACE if replace else ImportMode.CREATE
    request = ImportRequest(
        name=set_name or _name_of(paths[0]),
        purposes=frozenset(purpose) if purpose else None,
        mode=mode,
        source=", ".join(path.name for path in paths),
    )
    settings = host.read_settings(config)
    found = host.guarded(lambda: _read(paths))

    async def put(service: Service) -> m.AnchorImportReply:
        plan = await service.services.trust.import_found(
            DEFAULT_TENANT, request, found, _ACTOR, dry_run=dry_run
        )
        return m.import_message(plan, service.clock.now(), dry_run=dry_run)

    reply = host.ask(settings, put)
    if as_json:
        output.print_json(reply)
        return
    _show_import(reply)


@app.command(name="list")
def list_(set_name: str | None = None, /, *, config: host.Config = None, as_json: host.Json = False) -> None:
    """List what is trusted: all sets, or the certificates and lists of one.

    Example:
        attest-verifier anchors list
        attest-verifier anchors list vcenter-1
        attest-verifier anchors list --json

    Args:
        set_name: name of a set; those of the settings are `settings:ek`, `settings:ak`, `settings:device`.
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    if set_name is not None:
        _list_one(host.ask(settings, lambda service: _one(service, set_name)), as_json=as_json)
        return
    reply = host.ask(settings, _all)
    if as_json:
        output.print_json(reply)
        return
    if not reply.sets:
        output.err.print("nothing is trusted yet; next: attest-verifier anchors import FILE")
        return
    table = _table("set", "for", "anchors", "lists", "first ends", "alarms", "from", "by")
    for one in reply.sets:
        table.add_row(
            escape(one.name),
            ", ".join(one.purposes),
            str(one.anchors),
            str(one.crls),
            _day(one.next_expiry),
            f"[yellow]{one.alarms}[/]" if one.alarms else "",
            escape(one.source),
            f"{escape(one.assigned_by or '')} {_day(one.assigned_at)}".strip(),
        )
    output.out.print(table)


@app.command(name="remove")
def remove(which: str, /, *, config: host.Config = None, as_json: host.Json = False) -> None:
    """Trust a set, or one anchor, no longer. Machines that were enrolled under it stay enrolled.

    Example:
        attest-verifier anchors remove vcenter-1
        attest-verifier anchors remove 5e0a3c9d1b2f4a68

    Args:
        which: name of a set, or an anchor's SHA-256 (16 digits of it or more) as `anchors list SET` shows it.
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    removed = host.ask(settings, lambda service: service.services.trust.remove(DEFAULT_TENANT, which, _ACTOR))
    reply = m.removed_message(removed)
    if as_json:
        output.print_json(reply)
        return
    for one in reply.removed:
        what = "the set" if one.sha256 is None else f"anchor {one.sha256}"
        output.out.print(f"{escape(one.set)}: {what} is trusted no longer")
    output.err.print("machines enrolled under it: attest-verifier anchors review")


@app.command(name="review")
def review(*, config: host.Config = None, as_json: host.Json = False) -> int:
    """List enrolled machines whose certificate, of EK or AK, would no longer be accepted. Exit code: 0 none, 2 some.

    An anchor was removed, a revocation list came in, a date went by. They stay enrolled until you revoke them. A running
    service looks by itself after each change, and says so once in its log and audit log.

    Example:
        attest-verifier anchors review
        attest-verifier anchors review --json

    Args:
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    lost = host.ask(settings, lambda service: service.services.endorsements.review(DEFAULT_TENANT))
    if as_json:
        output.print_json(
            [
                {
                    "attester_id": one.attester_id,
                    "hostname": one.hostname,
                    "code": one.reason.value,
                    "detail": one.detail,
                }
                for one in lost
            ]
        )
    elif lost:
        table = _table("attester", "hostname", "code", "why")
        for one in lost:
            table.add_row(one.attester_id, escape(one.hostname or ""), one.reason.value, escape(one.detail))
        output.out.print(table)
        output.err.print("next: attestctl revoke ATTESTER, or import the anchor again")
    else:
        output.err.print("no machine was found whose certificate no longer holds")
    return _EXIT_SOME if lost else 0


async def _all(service: Service) -> m.AnchorSetsReply:
    sets = await service.services.trust.sets(DEFAULT_TENANT)
    return m.AnchorSetsReply(sets=[m.set_summary(one, service.clock.now()) for one in sets])


async def _one(service: Service, name: str) -> m.AnchorSetReply:
    return m.set_message(await service.services.trust.get(DEFAULT_TENANT, name), service.clock.now())


def _read(paths: Sequence[Path]) -> AnchorCollection:
    """All of them as one; a count of the files that were read on a terminal."""
    parts = []
    with output.err.status("reading") as status:
        for path in paths:
            count = 0

            def seen(source: str, path: Path = path) -> None:
                nonlocal count
                count += 1
                status.update(f"reading {escape(path.name)}: {count} files, {escape(source)}")

            parts.append(read_anchors(path, seen))
    anchors = TrustAnchors(anchor for part in parts for anchor in part.anchors)
    return AnchorCollection(
        anchors=anchors,
        crls=tuple(crl for part in parts for crl in part.crls),
        rejected=tuple(one for part in parts for one in part.rejected),
        ignored=tuple(one for part in parts for one in part.ignored),
    )


def _name_of(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().stem).strip("-.") or "anchors"


def _show_import(reply: m.AnchorImportReply) -> None:
    would = "would be" if reply.dry_run else "is"
    table = _table("", "SHA-256", "subject", "key", "ends")
    for mark, anchors in (("[green]added[/]", reply.added), ("[red]dropped[/]", reply.dropped)):
        _add_anchors(table, anchors, mark)
    if reply.added or reply.dropped:
        output.out.print(table)
    lists = f"revocation lists: {reply.crls_added} added, {reply.crls_dropped} dropped"
    output.out.print(
        f"set [bold]{escape(reply.set)}[/] {would} trusted for {', '.join(reply.purposes)}:"
        f" anchors: {len(reply.added)} added, {len(reply.dropped)} dropped, {reply.kept} kept; {lists}"
    )
    _show_left_out(reply)
    if reply.dry_run:
        output.err.print("nothing was changed; next: the same without --dry-run")


def _show_left_out(reply: m.AnchorImportReply) -> None:
    for one in reply.rejected:
        subject = f" ({escape(one.subject)})" if one.subject else ""
        output.err.print(f"[yellow]refused:[/] {escape(one.source)}{subject}: {escape(one.problem)}")
    if reply.ignored:
        names = ", ".join(reply.ignored[:_IGNORED])
        more = f" and {len(reply.ignored) - _IGNORED} more" if len(reply.ignored) > _IGNORED else ""
        output.err.print(f"[dim]neither certificates nor lists: {escape(names)}{more}[/]")


def _list_one(reply: m.AnchorSetReply, *, as_json: bool) -> None:
    if as_json:
        output.print_json(msgspec.to_builtins(reply))
        return
    head = reply.set
    output.out.print(
        f"[bold]{escape(head.name)}[/] for {', '.join(head.purposes)}, from {escape(head.source)}"
    )
    table = _table("", "SHA-256", "subject", "key", "ends")
    _add_anchors(table, reply.anchors, "")
    output.out.print(table)
    if reply.crls:
        lists = _table("", "revocation list of", "revoked", "made", "next due")
        for crl in reply.crls:
            mark = "[yellow]overdue[/]" if crl.overdue else ""
            mark = "[red]unusable[/]" if crl.unusable else mark
            lists.add_row(
                mark, escape(crl.issuer), str(crl.revoked), _day(crl.this_update), _day(crl.next_update)
            )
        output.out.print(lists)


def _add_anchors(table: Table, anchors: Iterable[m.TrustAnchor], mark: str) -> None:
    for anchor in anchors:
        ends = _day(anchor.not_after)
        if anchor.alarm_days is not None:
            ends = f"[red]{ends} (over)[/]" if anchor.alarm_days == 0 else f"[yellow]{ends} (soon)[/]"
        table.add_row(mark, anchor.sha256[:_SHOWN], escape(anchor.subject), anchor.key, ends)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"SHA-256", "ends"})
    return table


def _day(moment: str | None) -> str:
    return "" if moment is None else moment[:10]
