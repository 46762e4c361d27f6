"""`attestctl eventlog`: parse, replay and explain a boot log of Linux, Windows or a confidential guest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from verifier.appraisal.boot.continuation import Quoted
from verifier.appraisal.eventlog_report import explain_log
from verifier.cli import output
from verifier.cli.event_words import says
from verifier.cli.pcr_file import read_pcrs
from verifier.errors import MalformedInputError, VtpmAttestError
from verifier.findings import Status
from verifier.tcg.algorithms import HASH_BY_LABEL
from verifier.tcg.eventlog import DEFAULT_LIMIT

_NOT_SAID: Final = "not said"


def eventlog(
    file: Path, *, userspace: Path | None = None, pcrs: Path | None = None, json: bool = False
) -> int:
    """Parse, replay and explain a boot log. Exit code: 0 explained, 1 it does not lead to --pcrs, 65 not a boot log.

    Shows what each event says and whether its digest covers that. Nothing here is proven by a TPM: that takes
    a quote, and `attestctl appraise`. With --pcrs it says which PCR diverges first, after which event, and which known
    quirk fits (docs/quirks.md).

    Examples:
        attestctl eventlog /sys/kernel/security/tpm0/binary_bios_measurements

        attestctl eventlog 0000000003-0000000000.log --json

        attestctl eventlog boot.log --userspace /run/log/systemd/tpm2-measure.log

        tpm2_pcrread > pcrs.txt; attestctl eventlog boot.log --pcrs pcrs.txt

    Args:
        file: the log: SHA-1 or crypto-agile, as firmware, Linux or Windows (WBCL) writes it.
        userspace: what systemd logged of its own measurements afterwards, shown behind it.
        pcrs: values to hold the log against: output of tpm2_pcrread, a JSON file of banks, a bundle, or an evidence folder.
        json: print one JSON document.
    """
    try:
        values = None if pcrs is None else read_pcrs(pcrs)
        document = explain_log(_read(file), None if userspace is None else _read(userspace), values)
    except (OSError, VtpmAttestError) as error:
        output.fail(error)
    if json:
        output.print_json(document)
    else:
        _show(document, values or {})
    return 1 if document.get("first_divergence") else 0


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        data = stream.read(DEFAULT_LIMIT + 1)
    if len(data) > DEFAULT_LIMIT:
        raise MalformedInputError(
            str(file), DEFAULT_LIMIT, f"more than {DEFAULT_LIMIT} bytes: not a boot log"
        )
    return data


def _show(document: Mapping[str, Any], given: Quoted) -> None:
    events: Sequence[Mapping[str, Any]] = document["events"]
    banks = ", ".join(document["digest_algorithms"])
    registers: Mapping[str, str] = document["registers"] or {}
    output.out.print(f"[bold]{len(events)} events[/], {document['format']} log, banks {banks}")
    output.out.print(_events(events, registers))
    if document["nv_events"]:
        output.out.print(_nv_events(document["nv_events"]))
    for bank, values in document["pcrs"].items():
        output.out.print(_pcrs(bank, values, registers, given))
    output.out.print(_claims(document["claims"]))
    if document.get("first_divergence"):
        output.out.print(_divergence(document["first_divergence"], events))
    for finding in document["findings"]:
        mark = "[red]-[/]" if finding["status"] == Status.FAILED else "[yellow]-[/]"
        output.out.print(f"{mark} {escape(finding['message'])} [dim]({finding['code']})[/]")
        if "quirk" in finding and "remedy" in finding:
            output.out.print(f"  [dim]next: {escape(finding['remedy'])}[/]")


def _divergence(first: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    pcr, after = f"PCR {first['pcr']} ({first['bank']})", first["after_event"]
    if not first["where_known"]:
        where = f"{pcr} diverges; after which event cannot be told from its value"
    elif after is None:
        where = f"first to diverge: {pcr}, from its start"
    else:
        where = f"first to diverge: {pcr}, after event {after} ({events[after]['type']})"
    return f"\n[bold red]{where}[/]: [bold]{first['quirk'] or 'no known quirk'}[/]"


def _events(events: Sequence[Mapping[str, Any]], registers: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("#", "register" if registers else "PCR", "type", "digest", "", "says"):
        table.add_column(column, no_wrap=column not in ("says", "type"), overflow="fold")
    for event in events:
        measured = event["binding"] != "unmeasured"
        digest = next(reversed(event["digests"].values()), "")[:12] if measured else ""
        mark = {"bound": "[green]bound[/]", "known": "[green]known[/]", "unbound": "[dim]label[/]"}.get(
            event["binding"], ""
        )
        pcr = registers.get(str(event["pcr"]), event["pcr"]) if measured else "-"
        table.add_row(
            str(event["index"]),
            str(pcr),
            event["type"].removeprefix("EV_"),
            digest,
            mark,
            escape(says(event)),
        )
    return table


def _nv_events(events: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NV index", "called", "digest", "", "says"):
        table.add_column(column, no_wrap=column != "says", overflow="fold")
    for event in events:
        digest = next(reversed(event["digests"].values()), "")[:12]
        mark = "[green]bound[/]" if event["bound"] else "[dim]label[/]"
        table.add_row(
            event["nv_index"], escape(event["label"] or ""), digest, mark, escape(event["text"] or "")
        )
    return table


def _pcrs(bank: str, values: Mapping[str, str], registers: Mapping[str, str], given: Quoted) -> Table:
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=f"replayed {bank}", title_justify="left"
    )
    table.add_column("register" if registers else "PCR", justify="right")
    table.add_column("value", no_wrap=True)
    expected = {str(pcr): value.hex() for pcr, value in given.get(HASH_BY_LABEL[bank], {}).items()}
    if expected:
        table.add_column("given", no_wrap=True)
    for pcr, value in values.items():
        compared = _compared(value, expected.get(pcr)) if expected else ()
        table.add_row(registers.get(pcr, pcr), value, *compared)
    return table


def _compared(value: str, expected: str | None) -> tuple[str]:
    if expected is None:
        return ("[dim]not given[/]",)
    return ("[green]the same[/]",) if value == expected else (f"[red]{expected}[/]",)


def _claims(claims: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, title="read off", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _claim_rows(claims):
        table.add_row(name, escape(text))
    return table


def _claim_rows(claims: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the log says, in the order people ask; the whole of it is in the JSON document."""
    said = {name: value for name, value in claims["secure_boot"].items() if value is not None}
    yield "Secure Boot", ", ".join(f"{name} {_word(value)}" for name, value in said.items()) or _NOT_SAID
    databases = {name: database["entries"] for name, database in claims["databases"].items()}
    yield "databases", ", ".join(f"{name} {count}" for name, count in databases.items()) or _NOT_SAID
    yield (
        "let run by",
        _list(claims["authorities"], lambda who: f"{who['variable']} (event {who['event_index']})"),
    )
    yield "images", "\n".join(map(_image, claims["let_run"])) or "none"
    yield "command line", _word(claims["kernel_command_line"])
    for name in ("firmware_version", "startup_locality", "sbat_level", "firmware_actions", "loader_lines"):
        if claims[name]:
            yield name.replace("_", " "), _word(claims[name])
    if claims["uki_sections"]:
        yield "UKI", " ".join(claims["uki_sections"])
    yield from _userspace(claims["userspace"])
    if claims["windows"]:
        yield "Windows", _windows(claims["windows"])


def _userspace(claims: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What systemd measured, where there is anything of it."""
    if claims["machine_id"]:
        yield "machine id", claims["machine_id"]
    if claims["file_systems"]:
        yield "file systems", ", ".join(claims["file_systems"])
    if claims["volume_keys"]:
        yield "volume keys", f"{len(claims['volume_keys'])} of PCR 15's events have no proven text"


def _image(image: Mapping[str, Any]) -> str:
    said = f"event {image['image_event']} {image['device_path'] or ''}".rstrip()
    by = [
        " ".join(part for part in (one["variable"], one["subject"], f"(event {one['event']})") if part)
        for one in image["authorities"]
    ]
    return said + (f"\n  after {', '.join(by)} was measured; log order, not proven" if by else "")


def _list(items: Sequence[Any] | None, text: Callable[[Any], str]) -> str:
    return _NOT_SAID if items is None else ", ".join(text(item) for item in items) or "none"


def _windows(windows: Mapping[str, Any]) -> str:
    shown = ("codeintegrity", "testsigning", "bootdebugging", "oskerneldebug", "safemode", "vsm_launch_type")
    parameters = windows["parameters"]
    parts = [f"{name} {parameters[name]}" for name in shown if name in parameters]
    parts.append(f"BitLocker unlocked by {' '.join(windows['bitlocker_unlock']) or 'nothing'}")
    parts.extend(f"antimalware {driver}" for driver in windows["elam_drivers"])
    return ", ".join([*parts, f"{len(windows['modules'])} modules"])


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return _NOT_SAID if value is None else str(value)
