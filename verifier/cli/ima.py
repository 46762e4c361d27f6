"""`attestctl ima`: parse, replay and explain an IMA measurement list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from verifier.appraisal.ima.report import explain_ima
from verifier.cli import output
from verifier.cli.pcr_file import read_pcrs
from verifier.errors import MalformedInputError, VtpmAttestError
from verifier.tcg.ima.entry import STRUCTURE

LIMIT: Final = 256 * 1024 * 1024
"""Bytes; about a million entries."""
_FEW: Final = 40
"""Entries shown without --all, from the end."""


def ima(
    file: Path,
    *,
    pcrs: Path | None = None,
    everything: Annotated[bool, Parameter(name=["--all", "-a"])] = False,
    json: bool = False,
) -> int:
    """Parse and replay an IMA list, ascii or binary. Exit code: 0 read, 1 it does not lead to --pcrs, 65 no IMA list.

    Nothing here is proven by a TPM: that takes a quote. With --pcrs it says how much of the list leads to the values;
    the rest came later, or is not what was measured.

    Examples:
        attestctl ima /sys/kernel/security/ima/binary_runtime_measurements

        attestctl ima ascii_runtime_measurements --pcrs pcrs.json --json

    Args:
        file: the list; template, byte order and size of template digests are found out.
        pcrs: values to hold the list against: output of tpm2_pcrread, a JSON file of banks, a bundle, or an evidence folder.
        everything: show every entry, not only the last ones.
        json: print one JSON document, with every entry.
    """
    try:
        document = explain_ima(_read(file), None if pcrs is None else read_pcrs(pcrs))
    except (OSError, VtpmAttestError) as error:
        output.fail(error)
    if json:
        output.print_json(document)
    else:
        _show(document, everything=everything)
    return 1 if _diverges(document) else 0


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        data = stream.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise MalformedInputError(STRUCTURE, LIMIT, f"{file} has more than {LIMIT} bytes")
    return data


def _diverges(document: Mapping[str, Any]) -> bool:
    """Values were given, and the list leads to none of them."""
    given = [one for one in document["leads_to"] or () if one["given"]]
    return document["leads_to"] is not None and not any(one["after_entries"] is not None for one in given)


def _show(document: Mapping[str, Any], *, everything: bool) -> None:
    output.out.print(
        f"[bold]{document['entries']} entries[/], {document['format']} list, template {document['template']},"
        f" {document['violations']} violations, {document['signed']} signed"
    )
    entries: Sequence[Mapping[str, Any]] = document["measurements"]
    few = entries if everything else entries[-_FEW:]
    if len(few) < len(entries):
        output.out.print(f"[dim]the last {len(few)}; --all shows every entry[/]")
    output.out.print(_table(few))
    for one in document["boot_aggregates"]:
        output.out.print(f"boot aggregate (entry {one['index']}): {one['digest']}, {_AGGREGATE[one['pcrs']]}")
    values = (("pcrs", "leads to"), ("padded_pcrs", "before Linux 5.8"))
    for name, title in values if everything else values[:1]:
        for bank, pcrs in document[name].items():
            for pcr, value in pcrs.items():
                output.out.print(
                    f"[dim]{title + ':':<18}[/]{bank + ' PCR ' + pcr:<15} {value}", soft_wrap=True
                )
    for one in document["leads_to"] or ():
        output.out.print(_lead(one, document["entries"]))
    for finding in document["findings"]:
        where = f"entry {finding['event_index']}: " if "event_index" in finding else ""
        output.out.print(f"[yellow]-[/] {where}{escape(finding['message'])} [dim]({finding['code']})[/]")


_AGGREGATE: Final = {
    "agrees": "[green]agrees with the PCRs[/]",
    "differs": "[red]is not of these PCRs[/]",
    "no-tpm": "[red]the kernel found no TPM when IMA started[/]",
    "uncheckable": "not checked: no values of its bank",
}


def _lead(one: Mapping[str, Any], entries: int) -> str:
    name = f"{one['bank']} PCR {one['pcr']}"
    if not one["given"]:
        return f"{name}: no value given"
    if one["after_entries"] is None:
        return f"[bold red]{name}: no part of the list leads to the value given[/]"
    rest = entries - one["after_entries"]
    later = f"; {rest} came later, or are not what was measured" if rest else ""
    return f"[green]{name}: {one['after_entries']} entries lead to the value given[/] ({one['rule']}){later}"


def _table(entries: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("#", "PCR", "template", "digest", "", "path"):
        table.add_column(column, no_wrap=column != "path", overflow="fold")
    for one in entries:
        marks = [
            name for name in ("violation", "signature", "buffer", "modsig", "digest_type") if name in one
        ]
        table.add_row(
            str(one["index"]),
            str(one["pcr"]),
            one["template"],
            escape((one["digest"] or "")[:31]),
            " ".join("signed" if mark == "signature" else mark for mark in marks),
            escape(one["path"] or ""),
        )
    return table
