"""`attestctl webhooks`: where events are sent, and what did not arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.cli.events import Tier
from verifier.cli.fleet import Where
from verifier.cli.remote import path_of

app = App(
    name="webhooks",
    help="Where events are sent: list, show, add, remove, deliveries, redeliver.",
    help_format="plaintext",
)
_PATH = "/v1/webhooks"


@app.default
@app.command(name="list")
def listing(*, where: Where | None = None) -> int:
    """List webhooks.

    Example:
        attestctl webhooks list --json
    """
    at = where or Where()
    reply = at.ask(lambda remote: remote.get(_PATH))
    if at.json:
        output.print_json(reply)
        return 0
    if not reply["webhooks"]:
        output.out.print("no webhooks")
        return 0
    table = _table("id", "url", "wants", "description", "made", "by")
    for item in reply["webhooks"]:
        table.add_row(
            item["id"],
            escape(item["url"]),
            escape(_wants(item)),
            escape(item.get("description", "")),
            output.when(item["created_at"]),
            item["created_by"],
        )
    output.out.print(table)
    return 0


@app.command
def show(webhook: str, /, *, where: Where | None = None) -> int:
    """Show one webhook, without its secret.

    Example:
        attestctl webhooks show whk-k4zdsmjqgizdgmbrgaytembr

    Args:
        webhook: id as `attestctl webhooks list` shows it.
    """
    at = where or Where()
    reply = at.ask(lambda remote: remote.get(_PATH + path_of(webhook)))
    if at.json:
        output.print_json(reply)
        return 0
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in (
        ("webhook", reply["id"]),
        ("url", reply["url"]),
        ("wants", _wants(reply)),
        ("description", reply.get("description", "")),
        ("made", f"{reply['created_at']} by {reply['created_by']}"),
    ):
        table.add_row(label, escape(value))
    output.out.print(table)
    return 0


@app.command
def add(
    url: str,
    /,
    *,
    kind: Annotated[list[str] | None, Parameter(negative="")] = None,
    label: str | None = None,
    attester: str | None = None,
    tier: Tier | None = None,
    description: str = "",
    where: Where | None = None,
) -> int:
    """Send events to a URL, signed as Standard Webhooks has it. Prints the signing secret, this once.

    Example:
        attestctl webhooks add https://receiver.example/hook --kind attester.revoked --kind verdict.changed
        attestctl webhooks add https://siem.example/in --tier contraindicated --description "SIEM, ticket 4711"

    Args:
        url: https://…; private addresses only where the verifier's settings allow them.
        kind: only events of this kind; can be given several times. Without it: all.
        label: only of attesters with this label, KEY=VALUE.
        attester: only of this attester.
        tier: only verdicts that changed to this tier.
        description: for people.
    """
    at = where or Where()
    wants = {"kinds": kind, "label": label, "attester": attester, "tier": tier}
    body = {"url": url, "description": description} | {k: v for k, v in wants.items() if v is not None}
    reply = at.ask(lambda remote: remote.post(_PATH, body))
    if at.json:
        output.print_json(reply)
        return 0
    output.out.print(reply["secret"], markup=False, soft_wrap=True)  # alone, so that a script can take it
    output.remark(f"webhook {reply['webhook']['id']}: this is the only time its secret is shown")
    return 0


@app.command
def remove(webhook: str, /, *, where: Where | None = None) -> int:
    """Send nothing there any more; what was on its way is dropped.

    Example:
        attestctl webhooks remove whk-k4zdsmjqgizdgmbrgaytembr

    Args:
        webhook: id as `attestctl webhooks list` shows it.
    """
    at = where or Where()
    at.ask(lambda remote: remote.delete(_PATH + path_of(webhook)))
    if at.json:
        output.print_json({"id": webhook, "removed": True})
    else:
        output.out.print(f"{webhook} is removed")
    return 0


@app.command
def deliveries(
    webhook: str,
    /,
    *,
    status: Literal["pending", "delivered", "dead"] | None = None,
    limit: int = 100,
    before: int | None = None,
    where: Where | None = None,
) -> int:
    """List what is on its way to a webhook, has arrived, or was given up, newest first.

    Example:
        attestctl webhooks deliveries whk-k4zdsmjqgizdgmbrgaytembr --status dead

    Args:
        webhook: id as `attestctl webhooks list` shows it.
        status: pending, delivered or dead.
        limit: rows of one page.
        before: only deliveries with a lower id.
    """
    at = where or Where()
    query = {"status": status, "limit": limit, "before": before}
    path = _PATH + path_of(webhook, "deliveries")
    reply = at.ask(lambda remote: remote.get(path, query))
    if at.json:
        output.print_json(reply)
        return 0
    if not reply["deliveries"]:
        output.out.print(f"no {f'{status} ' if status else ''}deliveries")
        return 0
    table = _table("id", "event", "position", "status", "attempts", "made", "next try", "problem")
    for item in reply["deliveries"]:
        table.add_row(*_delivery(item))
    output.out.print(table)
    if reply.get("before"):
        output.remark(f"more: --before {reply['before']}")
    return 0


@app.command
def redeliver(
    webhook: str,
    /,
    *,
    delivery: Annotated[list[int] | None, Parameter(negative="")] = None,
    where: Where | None = None,
) -> int:
    """Try dead deliveries again: all of them, or those named.

    Example:
        attestctl webhooks redeliver whk-k4zdsmjqgizdgmbrgaytembr
        attestctl webhooks redeliver whk-k4zdsmjqgizdgmbrgaytembr --delivery 7 --delivery 9

    Args:
        webhook: id as `attestctl webhooks list` shows it.
        delivery: id as `attestctl webhooks deliveries` lists it; can be given several times.
    """
    at = where or Where()
    body = {} if delivery is None else {"deliveries": delivery}
    reply = at.ask(lambda remote: remote.post(_PATH + path_of(webhook, "redeliver"), body))
    if at.json:
        output.print_json(reply)
    else:
        output.out.print(f"{reply['count']} deliveries are tried again")
    return 0


def _wants(item: Mapping[str, Any]) -> str:
    parts = [", ".join(item.get("kinds", ())) or "all events"]
    parts += [f"{name} {item[name]}" for name in ("label", "attester", "tier") if item.get(name)]
    return "; ".join(parts)


_STYLE = {"pending": "yellow", "delivered": "green", "dead": "bold red"}


def _delivery(item: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(item["id"]),
        item["kind"],
        str(item["position"]),
        f"[{_STYLE[item['status']]}]{item['status']}[/]",
        str(item["attempts"]),
        output.when(item["created_at"]),
        output.when(item["due_at"]) if item.get("due_at") else "",
        escape(item.get("problem") or ""),
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    return table
