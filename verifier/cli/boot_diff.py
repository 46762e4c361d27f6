"""Two boots compared, event by event, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from verifier.appraisal.event_data import describe
from verifier.claims import Binding, EventFact
from verifier.cli.bundle import Bundle, read_bundle
from verifier.cli.event_words import Shown, differences, says
from verifier.cli.proof import prove
from verifier.policy.diff import EventChange, diff_boots
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import Event, parse_event_log

Row = Mapping[str, Any]

_BANK: Final = HashAlg.SHA256
_STYLE: Final = {"added": "green", "removed": "red", "changed": "yellow"}
_IMA_PCR: Final = 10
_MAX_PARTS: Final = 12
"""Lines of one change for people; the JSON document has all."""
_PROVEN: Final = (Binding.BOUND, Binding.KNOWN)


def compare_boots(before: Path, after: Path) -> list[dict[str, object]]:
    """Differences as rows for JSON, in the order of the PCRs.

    What is shown of an event is its decoded data where the digest covers it, and else a label: `proven` says which.

    Raises:
        VtpmAttestError: a file that cannot be read, a quote that does not hold.
    """
    old, new = read_bundle(before), read_bundle(after)
    left, right = _events(old), _events(new)
    return [_row(change, left, right) for change in diff_boots(prove(old), prove(new), _BANK)]


def _events(bundle: Bundle) -> Sequence[Event]:
    log = bundle.evidence.boot_log
    return () if log is None else parse_event_log(log).events


def _row(change: EventChange, left: Sequence[Event], right: Sequence[Event]) -> dict[str, object]:
    event = change.after or change.before
    old, new = _shown(change.before, left), _shown(change.after, right)
    return {
        "change": change.change.value,
        "pcr": change.pcr,
        "where": f"PCR {change.pcr}" + (f" {event.name or event.type_name}" if event else ""),
        "before_index": change.before.index if change.before else None,
        "after_index": change.after.index if change.after else None,
        "before": _digest(change.before, change.before_value),
        "after": _digest(change.after, change.after_value),
        "before_says": None if old is None else says(old),
        "after_says": None if new is None else says(new),
        "parts": [] if old is None or new is None else differences(old, new),
        "proven": event is not None
        and all(side.binding in _PROVEN for side in (change.before, change.after) if side is not None),
    }


def _shown(fact: EventFact | None, events: Sequence[Event]) -> Shown | None:
    if fact is None:
        return None
    if fact.index >= len(events):  # systemd's own log continues the boot log
        return {"name": fact.name, "text": fact.text, "data": {}}
    event = events[fact.index]
    return {"name": fact.name, "text": fact.text, "data": describe(event.event_type, event.data)}


def _digest(event: EventFact | None, value: bytes | None) -> str | None:
    found = value if event is None else event.digests[_BANK]
    return None if found is None else found.hex()


def boot_table(rows: Sequence[Row]) -> Table:
    """One change per row: which place of which PCR, and what is different there."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "where", "event", "what is different"):
        table.add_column(column, overflow="fold", no_wrap=column != "what is different")
    for row in rows:
        style = _STYLE[str(row["change"])]
        lines = "\n".join(_lines(row))
        table.add_row(f"[{style}]{row['change']}[/]", row["where"], _indices(row), lines)
    return table


def _indices(row: Row) -> str:
    old, new = row["before_index"], row["after_index"]
    if old is None or new is None or old == new:
        return "" if old is None and new is None else str(new if old is None else old)
    return f"{old} -> {new}"


def _lines(row: Row) -> list[str]:
    if row["before_index"] is None and row["after_index"] is None:
        return [_value(row)]
    parts = row["parts"]
    label = "" if row["proven"] else "  [dim](label)[/]"
    if parts:
        more = [f"[dim]and {len(parts) - _MAX_PARTS} more (--json)[/]"] if len(parts) > _MAX_PARTS else []
        return [*(_coloured(part) + label for part in parts[:_MAX_PARTS]), *more]
    sides = (("-", row["before"], row["before_says"]), ("+", row["after"], row["after_says"]))
    return [
        _coloured(f"{sign} {digest[:16]} {text or ''}") + (label if text else "")
        for sign, digest, text in sides
        if digest is not None
    ]


def _coloured(line: str) -> str:
    style = _STYLE["added" if line.startswith("+") else "removed"]
    return f"[{style}]{escape(line)}[/]"


def _value(row: Row) -> str:
    why = "no event of the logs explains it"
    if row["pcr"] == _IMA_PCR:
        why = "the kernel's integrity list extends it while the guest runs"
    old, new = ("not quoted" if row[key] is None else str(row[key])[:16] for key in ("before", "after"))
    return f"{old} -> {new}, as a whole: {why}"
