"""`attestctl enrollments | clones | resolve`: what an operator decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.cli.fleet import Where
from verifier.cli.remote import Remote, path_of

enrollments = App(
    name="enrollments",
    help="Machines that wait to be let in: list, show, approve, refuse.",
    help_format="plaintext",
)


@enrollments.default
def listing(
    *,
    status: Literal["pending", "approved", "refused"] = "pending",
    limit: int = 100,
    cursor: str | None = None,
    where: Where | None = None,
) -> int:
    """List machines that have proven their keys and wait for a decision, oldest first.

    Example:
        attestctl enrollments --json

    Args:
        status: pending, approved or refused.
        limit: rows of one page.
        cursor: where to go on; the last line of a full page names it.
    """
    at = where or Where()
    query = {"status": status, "limit": limit, "cursor": cursor}
    reply = at.ask(lambda remote: remote.get("/v1/enrollments", query))
    if at.json:
        output.print_json(reply)
        return 0
    if not reply["enrollments"]:
        output.out.print(f"no {status} enrolments")
        return 0
    table = decision_table("id", "hostname", "SMBIOS UUID", "from", "asked", "expires", "held", "why")
    for item in reply["enrollments"]:
        table.add_row(
            item["id"],
            escape(item["identity"].get("hostname") or ""),
            escape(item["identity"].get("smbios_uuid") or ""),
            item.get("source", ""),
            output.when(item["created_at"]),
            output.when(item["expires_at"]),
            _methods(item),
            _why(item),
        )
    output.out.print(table)
    output.more(reply)
    return 0


@enrollments.command
def show(enrollment_id: str, *, where: Where | None = None) -> int:
    """Show all that is known of one enrolment, and every conflict with what is on record now.

    Example:
        attestctl enrollments show enr-k4zdsmjqgizdgmbrgaytembr
    """
    at = where or Where()
    reply = at.ask(lambda remote: remote.get(f"/v1/enrollments{path_of(enrollment_id)}"))
    _show(at, reply)
    return 0


@enrollments.command
def approve(
    enrollment_id: str,
    *,
    reason: str = "",
    replaces: str | None = None,
    as_new: Annotated[bool, Parameter(negative="")] = False,
    overrule: Annotated[bool, Parameter(negative="")] = False,
    where: Where | None = None,
) -> int:
    """Let a machine in, with exactly the EK and AK that it has proven.

    One that waits as identity-replaced takes the place of the attester that is known with its SMBIOS UUID: that one is
    retired, and its history stays.

    Example:
        attestctl enrollments approve enr-k4zdsmjqgizdgmbrgaytembr --reason "new vTPM after restore, ticket 4711"

    Args:
        enrollment_id: id as `attestctl enrollments` lists it.
        reason: for the audit log.
        replaces: attester whose place it takes, where there are several.
        as_new: it takes nobody's place, although its UUID is known of another.
        overrule: although it was refused before.
    """
    body = {"reason": reason, "replaces": replaces, "as_new": as_new, "overrule": overrule}
    at = where or Where()
    reply = at.ask(lambda remote: _post(remote, enrollment_id, "approve", body))
    if at.json:
        output.print_json(reply)
        return 0
    place = f", in place of {reply['replaces']}" if reply.get("replaces") else ""
    output.out.print(f"{reply['id']} is approved: attester {reply['attester']}{place}")
    return 0


@enrollments.command
def refuse(enrollment_id: str, *, reason: str = "", where: Where | None = None) -> int:
    """Keep a machine out. It is told the reason, and its EK cannot ask again until the record expires.

    Example:
        attestctl enrollments refuse enr-k4zdsmjqgizdgmbrgaytembr --reason "not one of ours"

    Args:
        enrollment_id: id as `attestctl enrollments` lists it.
        reason: for the machine and the audit log.
    """
    at = where or Where()
    reply = at.ask(lambda remote: _post(remote, enrollment_id, "refuse", {"reason": reason}))
    if at.json:
        output.print_json(reply)
    else:
        output.out.print(f"{reply['id']} is refused")
    return 0


def clones(*, limit: int = 100, cursor: str | None = None, where: Where | None = None) -> int:
    """List clones and rollbacks nobody has resolved, with every guest that showed the TPM's state.

    Example:
        attestctl clones

    Args:
        limit: incidents of one page.
        cursor: where to go on; the last line of a full page names it.
    """
    at = where or Where()
    reply = at.ask(lambda remote: remote.get("/v1/incidents", {"limit": limit, "cursor": cursor}))
    if at.json:
        output.print_json(reply)
        return 0
    if not reply["incidents"]:
        output.out.print("no open incidents")
        return 0
    for item in reply["incidents"]:
        output.out.print(
            f"[bold]{item['id']}[/]  [bold red]{item['kind']}[/]  attester {item['attester']},"
            f" since {output.when(item['since'])}"
        )
        output.out.print(_guests(item["guests"]))
        output.out.print()
    output.err.print("[dim]next: attestctl resolve INCIDENT --keep GUEST [--reenrol GUEST] --reason TEXT[/]")
    output.more(reply)
    return 0


def resolve(
    incident: str,
    *,
    keep: str | None = None,
    reenrol: Annotated[str | None, Parameter(name=["--reenrol", "--reenroll"])] = None,
    reason: str = "",
    where: Where | None = None,
) -> int:
    """Say which guest of a clone or rollback goes on, and which has to enrol with a new vTPM.

    With --keep, the guest goes on from the state it showed last, and every other SMBIOS UUID that was claimed with this
    TPM is refused until its machine comes with another TPM.

    Example:
        attestctl resolve inc-att-k4zdsmjqgizdgmbrgaytembr-6615013a321c0c --keep web-1 --reenrol web-1-copy --reason "test copy"

    Args:
        incident: id as `attestctl clones` lists it.
        keep: the guest that goes on: id, SMBIOS UUID, boot id or host name.
        reenrol: the guest that is not heard any more, or `all`: nobody with this TPM is, until it has enrolled again.
        reason: for the audit log.
    """
    body = {name: value for name, value in (("keep", keep), ("reenroll", reenrol)) if value is not None}
    at = where or Where()
    path = f"/v1/incidents{path_of(incident, 'resolve')}"
    reply = at.ask(lambda remote: remote.post(path, {**body, "reason": reason}))
    if at.json:
        output.print_json(reply)
        return 0
    kept = f"{keep} goes on" if keep is not None else "nobody's state was chosen"
    output.out.print(f"{incident} is resolved: {escape(kept)} as attester {reply['id']}")
    return 0


def _post(remote: Remote, enrollment_id: str, what: str, body: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON
    given = {name: value for name, value in body.items() if value not in (None, False)}
    return remote.post(f"/v1/enrollments{path_of(enrollment_id, what)}", given)


def _show(at: Where, item: Mapping[str, Any]) -> None:
    if at.json:
        output.print_json(item)
        return
    endorsement, identity = item["endorsement"], item["identity"]
    rows = [
        ("enrolment", f"{item['id']}, {item['status']} ({item['code']})"),
        ("says it is", ", ".join(f"{key} {value}" for key, value in identity.items())),
        ("asked", f"{item['created_at']} from {item.get('source', 'an unknown address')}"),
        ("keys proven", item["proven_at"]),
        ("expires", item["expires_at"]),
        ("EK", endorsement["ek_sha256"]),
        ("AK name", item["ak_name"]),
        ("methods that held", _methods(item) or "none"),
        ("join token", item.get("token", "none")),
        ("EK certificate", endorsement.get("issuer") or "none that was validated"),
        *((key, plain(value)) for key, value in endorsement.get("profile", {}).items() if key != "methods"),
        *(("conflict", f"{each['code']}: {each['message']}") for each in item.get("conflicts", [])),
        *(("could replace", each) for each in item.get("candidates", [])),
    ]
    if item.get("decided_at"):
        rows.append(("decided", f"{item['decided_at']} by {item['decided_by']}: {item['decision_reason']}"))
    if item.get("attester"):
        rows.append(("attester", item["attester"]))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, escape(str(value)))
    output.out.print(table)


def _guests(guests: Sequence[Mapping[str, Any]]) -> Table:
    table = decision_table(
        "guest", "hostname", "SMBIOS UUID", "boot id", "seen", "clock (resets/restarts/ms)"
    )
    for guest in guests:
        table.add_row(
            guest["id"],
            escape(guest.get("hostname") or ""),
            escape(guest.get("smbios_uuid") or ""),
            escape(guest.get("boot_id") or ""),
            output.when(guest["seen_at"]),
            f"{guest['reset_count']}/{guest['restart_count']}/{guest['clock']}",
        )
    return table


def decision_table(*columns: str) -> Table:
    """A table whose ids are never cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in {"id", "guest"}, overflow="fold")
    return table


def _why(item: Mapping[str, Any]) -> str:
    conflicts = [each["code"] for each in item.get("conflicts", [])]
    return ", ".join(dict.fromkeys([item["code"], *conflicts]))


def _methods(item: Mapping[str, Any]) -> str:
    return ", ".join(item["endorsement"].get("profile", {}).get("methods", []))


def plain(value: object) -> str:
    """A value of JSON on one line."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={plain(each)}" for key, each in value.items() if each is not None)
    if isinstance(value, list):
        return "; ".join(map(plain, value)) or "none"
    return str(value)
