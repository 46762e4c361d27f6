"""`attestctl eventlog`: parse, replay and explain a boot log of Linux, Windows or a confidential guest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from verifier.appraisal.eventlog_report import explain_log
from verifier.cli import output
from verifier.errors import MalformedInputError, VtpmAttestError
from verifier.tcg.eventlog import DEFAULT_LIMIT


def eventlog(file: Path, *, json: bool = False) -> int:
    """Parse, replay and explain a boot log. Exit code: 0 explained, 65 not a boot log.

    Shows what each event says and whether its digest covers that. Nothing here is proven by a TPM: that takes
    a quote, and `attestctl appraise`.

    Examples:
        attestctl eventlog /sys/kernel/security/tpm0/binary_bios_measurements

        attestctl eventlog 0000000003-0000000000.log --json

    Args:
        file: the log: SHA-1 or crypto-agile, as firmware, Linux or Windows (WBCL) writes it.
        json: print one JSON document.
    """
    try:
        document = explain_log(_read(file))
    except (OSError, VtpmAttestError) as error:
        output.fail(error)
    if json:
        output.print_json(document)
    else:
        _show(document)
    return 0


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        data = stream.read(DEFAULT_LIMIT + 1)
    if len(data) > DEFAULT_LIMIT:
        raise MalformedInputError(
            str(file), DEFAULT_LIMIT, f"more than {DEFAULT_LIMIT} bytes: not a boot log"
        )
    return data


def _show(document: Mapping[str, Any]) -> None:
    events: Sequence[Mapping[str, Any]] = document["events"]
    banks = ", ".join(document["digest_algorithms"])
    output.out.print(f"[bold]{len(events)} events[/], {document['format']} log, banks {banks}")
    output.out.print(_events(events))
    for bank, values in document["pcrs"].items():
        output.out.print(_pcrs(bank, values))
    output.out.print(_claims(document["claims"]))
    for finding in document["findings"]:
        output.out.print(f"[yellow]-[/] {escape(finding['message'])} [dim]({finding['code']})[/]")


def _events(events: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("#", "PCR", "type", "digest", "", "says"):
        table.add_column(column, no_wrap=column not in ("says", "type"), overflow="fold")
    for event in events:
        measured = event["binding"] != "unmeasured"
        digest = next(reversed(event["digests"].values()), "")[:12] if measured else ""
        mark = {"bound": "[green]bound[/]", "known": "[green]known[/]", "unbound": "[dim]label[/]"}.get(
            event["binding"], ""
        )
        pcr = event["pcr"] if measured else "-"
        table.add_row(
            str(event["index"]),
            str(pcr),
            event["type"].removeprefix("EV_"),
            digest,
            mark,
            escape(_says(event)),
        )
    return table


def _says(event: Mapping[str, Any]) -> str:
    data = event["data"]
    if event.get("text"):
        said = f"{event['name']}: {event['text']}" if event.get("name") else str(event["text"])
    elif "variable" in data:
        said = data["variable"] + _variable(data)
    else:
        keys = ("device_path", "text", "signature", "description", "address", "disk", "hex")
        said = next((str(data[key]) for key in keys if data.get(key)), "")
    return said + (f" [{data['problem']}]" if "problem" in data else "")


def _variable(data: Mapping[str, Any]) -> str:
    if "entries" in data:
        subjects = [entry["subject"] for entry in data["signatures"] if "subject" in entry]
        return f" ({data['entries']} entries{''.join(f', {subject}' for subject in subjects)})"
    if "authority" in data:
        return f" {data['authority'].get('subject') or data['authority'].get('hex', '')}"
    if "order" in data:
        return f" = {' '.join(data['order'])}"
    if "description" in data:
        return f" = {data['description']} {data['device_path']}"
    value = data.get("value")
    return f" = {value if not isinstance(value, Mapping) else value.get('text', value.get('hex'))}"


def _pcrs(bank: str, values: Mapping[str, str]) -> Table:
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=f"replayed {bank}", title_justify="left"
    )
    table.add_column("PCR", justify="right")
    table.add_column("value", no_wrap=True)
    for pcr, value in values.items():
        table.add_row(pcr, value)
    return table


def _claims(claims: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, title="read off", title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in claims.items():
        if isinstance(value, Mapping):
            shown = (
                ", ".join(f"{key} {_word(item)}" for key, item in value.items() if item is not None)
                or "not said"
            )
        else:
            shown = _word(value)
        table.add_row(name.replace("_", " "), escape(shown))
    return table


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "not said" if value is None else str(value)
