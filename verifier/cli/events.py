"""`attestctl events`: what happened, and what happens."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter
from rich.markup import escape

from verifier.cli import output
from verifier.cli.event_stream import GAP, TYPE_PREFIX, Message, followed, stored
from verifier.cli.fleet import Where
from verifier.cli.remote import RemoteError

Tier = Literal["affirming", "warning", "contraindicated", "none"]
JsonLines = Annotated[bool, Parameter(name="--jsonl", negative="", show_default=False)]
_KIND_STYLE: Final = {
    "attester.revoked": "bold red",
    "incident.opened": "bold red",
    "endorsement.lost": "red",
    "log.damaged": "bold red",
    "secret.withheld": "red",
}
_LOST: Final = "events before these are not kept any more (setting events.keep): look at the fleet anew"


def events(
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    since: str | None = None,
    kind: Annotated[list[str] | None, Parameter(negative="")] = None,
    label: str | None = None,
    attester: str | None = None,
    tier: Tier | None = None,
    jsonl: JsonLines = False,
    where: Where | None = None,
) -> int:
    """List what happened, oldest first; with --follow, also what happens from then on.

    A lost connection is made again and goes on where it was. Ctrl-C ends it (exit code 130).

    Example:
        attestctl events --kind attester.revoked --kind verdict.changed --json
        attestctl events --follow --tier contraindicated --label role=web
        attestctl events --follow --since 4711 --jsonl | jq .subject

    Args:
        follow: do not end. Without --since: from now on.
        since: only what came after this position (the number before an event, `sequence` in JSON).
        kind: only events of this kind; can be given several times.
        label: only of attesters with this label, KEY=VALUE.
        attester: only of this attester.
        tier: only verdicts that changed to this tier.
        jsonl: print one JSON document (a CloudEvent) per line.
    """
    at = where or Where()
    if at.json and (follow or jsonl):
        output.usage("--json prints one document and ends: use --jsonl, alone or with --follow")
    query = {"kind": ",".join(kind) if kind else None, "label": label, "attester": attester, "tier": tier}
    if follow:
        at.ask(
            lambda remote: _show(
                followed(remote, query, since, say=output.remark, pause=time.sleep), jsonl=jsonl
            )
        )
    elif at.json:
        output.print_json(at.ask(lambda remote: _document(stored(remote, query, since or "0"))))
    else:
        at.ask(lambda remote: _show(stored(remote, query, since or "0"), jsonl=jsonl))
    return 0


def _document(found: Iterable[Message]) -> Mapping[str, object]:
    """All of it in one; `position` is what to give to --since next time."""
    listed = list(found)
    if not listed or listed[-1].is_event:
        raise RemoteError("the stream of events broke off before its end: try again")
    return {
        "events": [each.data for each in listed if each.is_event],
        "position": int(listed[-1].position),
        "gap": any(each.kind == GAP for each in listed),
    }


def _show(found: Iterable[Message], *, jsonl: bool) -> None:
    for message in found:
        if message.kind == GAP:
            output.remark(_LOST)
        elif not message.is_event:
            continue
        elif jsonl:
            output.print_line(message.data)
        else:
            output.out.print(line(message), soft_wrap=True)


def line(message: Message) -> str:
    """An event for people."""
    event = message.data
    kind = str(event["type"]).removeprefix(TYPE_PREFIX)
    style = _KIND_STYLE.get(kind, "bold")
    return (
        f"[dim]{message.position:>6}  {str(event['time'])[:19]}Z[/]  [{style}]{kind}[/]"
        f"  {escape(str(event['subject']))}  {_words(kind, event['data'])}"
    ).rstrip()


def _words(kind: str, data: Mapping[str, Any]) -> str:
    if kind == "verdict.changed":
        before = f"{output.tier_text(data['previous'])} -> " if data.get("previous") else ""
        reasons = f"  {escape(', '.join(data['reasons']))}" if data.get("reasons") else ""
        return f"{before}{output.tier_text(data['status'])}{reasons}"
    hidden = {"attester_id", "labels"}
    return "  ".join(f"{key}={escape(_value(value))}" for key, value in data.items() if key not in hidden)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)
