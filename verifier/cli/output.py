"""How results look: one JSON document for programs, tables for people, errors that name the next step."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from verifier.cli.remote import AddressError, HttpError
from verifier.errors import EvidenceError, PolicyError, VtpmAttestError
from verifier.findings import Status
from verifier.reasons import Reason, Tier

T = TypeVar("T")
EXIT_TIER: Final = {Tier.AFFIRMING: 0, Tier.WARNING: 1, Tier.CONTRAINDICATED: 2, Tier.NONE: 3}
EXIT_USAGE: Final = 64
EXIT_DATA: Final = 65
EXIT_UNAVAILABLE: Final = 69
EXIT_IO: Final = 74
EXIT_REFUSED: Final = 77
EXIT_INTERRUPTED: Final = 130

_NOT_ALLOWED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

TIER_STYLE: Final = {
    "affirming": "bold green",
    "warning": "bold yellow",
    "contraindicated": "bold red",
    "none": "bold magenta",
    "stale": "bold magenta",
    "revoked": "dim",
    "retired": "dim",
}
_STATUS_STYLE: Final = {"passed": "green", "failed": "red", "not-evaluated": "yellow"}

_PIPE_WIDTH: Final = 200
"""Columns when nobody looks at a terminal: a cut id is of no use to a script."""


def _open_standard_streams() -> None:
    """Who was started without one of them writes to nowhere: Python has no object for it, and its number is free for the next file."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so this one's
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, "w" if number else "r"))


_open_standard_streams()
out: Final = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
err: Final = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _PIPE_WIDTH)


class InputError(VtpmAttestError):
    """A file that was given cannot be used; the text says what to give instead."""


class OutputError(VtpmAttestError):
    """What was found out cannot be put where it was asked for."""


def print_json(document: object) -> None:
    """One JSON document on stdout and nothing else."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


def print_text(text: str) -> None:
    """What somebody else reads later, byte by byte as it is."""
    sys.stdout.write(text)


def write(path: Path, content: bytes) -> None:
    """Write a file and the folders above it; leaves with an explanation where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        fail(OutputError(f"cannot write {path}: {error.strerror}; name another file with --out"))


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar on stderr while they are worked at, if that is a terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield from bar.track(items, total=total, description=what)


def print_line(document: object) -> None:
    """One JSON document on one line of stdout, at once: for what does not end."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def remark(text: str) -> None:
    """A line for people, on stderr."""
    err.print(f"[dim]{escape(text)}[/]", soft_wrap=True)


def usage(text: str) -> NoReturn:
    """Say how it is called, and leave."""
    err.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)
    raise SystemExit(EXIT_USAGE)


def tier_text(tier: str) -> str:
    """A tier in its colour (colours only on a terminal)."""
    return f"[{TIER_STYLE.get(tier, 'bold')}]{tier}[/]"


def findings_table(findings: Iterable[Mapping[str, object]], *, everything: bool = False) -> Table:
    """Findings as rows; passed ones only when asked for."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for column in ("", "code", "where", "finding"):
        table.add_column(column, no_wrap=column == "code", overflow="fold")
    for finding in findings:
        status = str(finding["status"])
        if status == Status.PASSED.value and not everything:
            continue
        table.add_row(
            f"[{_STATUS_STYLE[status]}]{_MARK[status]}[/]",
            str(finding["code"]),
            _where(finding),
            _explain(finding),
        )
    return table


_MARK: Final = {"passed": "ok", "failed": "FAIL", "not-evaluated": "??"}


def _where(finding: Mapping[str, object]) -> str:
    pcr, event = finding.get("pcr"), finding.get("event_index")
    kind = "entry" if str(finding["code"]).startswith("ima-") else "event"
    parts = ([f"PCR {pcr}"] if pcr is not None else []) + ([f"{kind} {event}"] if event is not None else [])
    return " ".join(parts)


def _explain(finding: Mapping[str, object]) -> str:
    lines = [escape(str(finding["message"]))]
    for key, label in (("expected", "expected"), ("actual", "found")):
        if finding.get(key) is not None:
            lines.append(f"  {label + ':':<10}{escape(str(finding[key]))}")
    if finding.get("remedy"):
        lines.append(f"  [dim]next:     {escape(str(finding['remedy']))}[/]")
    return "\n".join(lines)


def fail(error: Exception) -> NoReturn:
    """Say what went wrong and what to do, on stderr, and leave with the matching code (64 and up)."""
    text = (
        f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    )
    err.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)
    step = next_step(error)
    if step is not None:
        err.print(f"[dim]next: {escape(step)}[/]", soft_wrap=True)
    raise SystemExit(exit_code(error))


def next_step(error: Exception) -> str | None:
    """What somebody at a terminal can do about it, where the text does not say so itself."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, FileNotFoundError):
        return f"name a file that is there; paths are looked for from {Path.cwd()}"
    if isinstance(cause, PermissionError):
        return "run this as a user who may read it"
    if not isinstance(error, EvidenceError):
        return None
    if error.reason is Reason.MALFORMED_REQUEST:  # its remedy speaks to programs
        return "mend what is named; `attest-agent collect --out FILE` writes evidence as it is read here"
    return f"{error.reason.entry.remedy} ({error.reason.value})"


def exit_code(error: Exception) -> int:
    """sysexits.h style: 64 usage, 65 data, 69 unavailable, 74 a file that cannot be written, 77 not allowed."""
    if isinstance(error, (EvidenceError, PolicyError, InputError)):
        return EXIT_DATA
    if isinstance(error, OutputError):
        return EXIT_IO
    if isinstance(error, HttpError) and error.status in _NOT_ALLOWED:
        return EXIT_REFUSED
    if isinstance(error, VtpmAttestError) and not isinstance(error, AddressError):
        return EXIT_UNAVAILABLE
    return EXIT_USAGE


_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def when(text: str | None) -> str:
    """A time of the wire as people read it: `3 min ago`, `in 12 min`; `never` where there is none."""
    if not text:
        return "never"
    seconds = int((datetime.fromisoformat(text) - utcnow()).total_seconds())
    size, unit = next((span for span in _SPANS if abs(seconds) >= span[0]), _SPANS[-1])
    count = abs(seconds) // size
    if not count:
        return "now"
    return f"in {count} {unit}" if seconds > 0 else f"{count} {unit} ago"


def utcnow() -> datetime:
    """The commands' clock."""
    return datetime.now(UTC)


def more(reply: Mapping[str, Any]) -> None:
    """How to see the next page of a listing, where there is one. One cursor in 64 begins with a hyphen, hence the `=`."""
    if reply.get("cursor"):
        err.print(f"[dim]more: --cursor={escape(reply['cursor'])}[/]")
