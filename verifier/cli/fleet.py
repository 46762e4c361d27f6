"""`attestctl status | attesters | verdict | history | revoke`: the fleet as the verifier sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.cli.remote import Remote, RemoteError, path_of

T = TypeVar("T")
State: TypeAlias = Literal[
    "affirming", "warning", "contraindicated", "none", "enrolled", "stale", "revoked", "retired", "pending"
]
"""As the API's listing of attesters has them."""
EXIT_STATUS: Final = {"affirming": 0, "warning": 1, "contraindicated": 2, "none": 3}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Where:
    """Which verifier to ask, and how.

    Attributes:
        server: https://HOST:PORT (or ATTESTCTL_SERVER).
        token: API token (or ATTESTCTL_TOKEN).
        ca: CA file of the verifier (or ATTESTCTL_CA); the system's CAs by default.
        json: print one JSON document.
    """

    server: str | None = None
    token: str | None = None
    ca: Path | None = None
    json: Annotated[bool, Parameter(negative="")] = False

    def ask(self, question: Callable[[Remote], T]) -> T:
        """Put a question to the verifier; leaves with an explanation when it cannot be asked."""
        try:
            return question(Remote.from_options(self.server, self.token, self.ca))
        except RemoteError as error:
            output.fail(error)


def status(*, where: Where | None = None) -> int:
    """Count the fleet by verdict and lifecycle.

    Example:
        attestctl status --server https://verifier.example:8443 --ca ca.pem
    """
    at = where or Where()
    reply = at.ask(lambda remote: remote.get("/v1/status"))
    if at.json:
        output.print_json(reply)
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("state")
    table.add_column("guests", justify="right")
    counts = reply.get("counts", reply)
    for name, count in counts.items():
        table.add_row(output.tier_text(name), str(count))
    output.out.print(table)
    return 0


def attesters(
    *,
    status: State | None = None,
    label: str | None = None,
    search: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
    where: Where | None = None,
) -> int:
    """List attesters with their current verdict.

    Example:
        attestctl attesters --status contraindicated --search web-

    Args:
        status: tier of the current verdict, or what became of the attester.
        label: KEY=VALUE.
        search: part of a hostname, SMBIOS UUID or id.
        limit: rows of one page.
        cursor: where to go on; the last line of a full page names it.
    """
    at = where or Where()
    query = {"status": status, "label": label, "search": search, "limit": limit, "cursor": cursor}
    reply = at.ask(lambda remote: remote.get("/v1/attesters", query))
    if at.json:
        output.print_json(reply)
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "hostname", "lifecycle", "verdict", "judged", "expires"):
        table.add_column(column, no_wrap=column != "hostname", overflow="fold")
    for item in reply["attesters"]:
        table.add_row(
            item["id"],
            escape(str(item.get("hostname") or "")),
            item.get("lifecycle", ""),
            output.tier_text(item.get("status", "none")),
            output.when(item.get("judged_at")),
            output.when(item.get("valid_until")),
        )
    output.out.print(table)
    output.more(reply)
    return 0


def verdict(
    attester_id: str,
    *,
    ear: bool = False,
    everything: Annotated[bool, Parameter(name=["--all", "-a"])] = False,
    where: Where | None = None,
) -> int:
    """Show the current verdict. Exit code: 0 affirming, 1 warning, 2 contraindicated, 3 none.

    Example:
        attestctl verdict 3f0c... --all

    Args:
        attester_id: id as `attestctl attesters` lists it.
        ear: print the signed EAR (a JWT) instead.
        everything: list the checks that passed as well.
    """
    at = where or Where()
    path = f"/v1/attesters{path_of(attester_id, 'verdict')}"
    if ear:
        signed = at.ask(lambda remote: remote.get(path, accept="application/eat+jwt"))
        if at.json:
            output.print_json({"ear": signed})
        else:
            output.out.print(signed, markup=False, soft_wrap=True)
        return 0
    reply = at.ask(lambda remote: remote.get(path))
    if at.json:
        output.print_json(reply)
    else:
        show_verdict(reply, everything=everything)
    return EXIT_STATUS[reply["status"]]


def show_verdict(reply: Mapping[str, Any], *, everything: bool = False) -> None:
    """One verdict for people."""
    policy = reply.get("policy") or {}
    output.out.print(
        f"{reply['attester_id']}: {output.tier_text(reply['status'])} ({reply.get('lifecycle', 'enrolled')})"
    )
    output.out.print(
        f"[dim]judged {_judged(reply)}, expires {output.when(reply['valid_until'])},"
        f" policy {policy.get('id')} {str(policy.get('revision'))[:16]}[/]"
    )
    output.out.print(
        "[dim]" + "  ".join(f"{claim}={value}" for claim, value in reply["vector"].items()) + "[/]\n"
    )
    if not everything and all(finding["status"] == "passed" for finding in reply["findings"]):
        output.out.print(f"all {len(reply['findings'])} checks passed; --all lists them")
        return
    output.out.print(output.findings_table(reply["findings"], everything=everything))


def history(
    attester_id: str, *, limit: int = 20, before: int | None = None, where: Where | None = None
) -> int:
    """List earlier verdicts, newest first.

    Example:
        attestctl history 3f0c... --limit 5

    Args:
        attester_id: id as `attestctl attesters` lists it.
        limit: rows of one page.
        before: only verdicts with a lower sequence.
    """
    at = where or Where()
    path = f"/v1/attesters{path_of(attester_id, 'history')}"
    reply = at.ask(lambda remote: remote.get(path, {"limit": limit, "before": before}))
    if at.json:
        output.print_json(reply)
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("sequence", "judged", "verdict", "clock", "findings"):
        table.add_column(column, no_wrap=column != "findings")
    for item in reply["verdicts"]:
        bad = [finding["code"] for finding in item["findings"] if finding["status"] != "passed"]
        clock = item.get("clock") or {}
        table.add_row(
            str(item["sequence"]),
            _judged(item),
            output.tier_text(item["status"]),
            f"{clock.get('reset_count')}/{clock.get('restart_count')}/{clock.get('clock')}",
            ", ".join(bad),
        )
    output.out.print(table)
    return 0


def revoke(attester_id: str, *, where: Where | None = None) -> int:
    """Revoke an attester: no more challenges, no more verdicts.

    Example:
        attestctl revoke 3f0c...
    """
    at = where or Where()
    at.ask(lambda remote: remote.post(f"/v1/attesters{path_of(attester_id, 'revoke')}", {}))
    if at.json:
        output.print_json({"attester_id": attester_id, "lifecycle": "revoked"})
    else:
        output.out.print(f"{attester_id} is revoked")
    return 0


def _judged(verdict: Mapping[str, Any]) -> str:
    """When its evidence came, and when that was judged again."""
    again = verdict.get("rejudged_at")
    return output.when(verdict["judged_at"]) + (f", again {output.when(again)}" if again else "")
