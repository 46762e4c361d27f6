"""`attestctl policy push | assign | assignments | unassign` and `attestctl label`: which policies judge whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.cli.fleet import Where
from verifier.cli.remote import path_of
from verifier.errors import VtpmAttestError
from verifier.policy.assignment import parse_selector
from verifier.policy_files import read_policy_source

Labels = Annotated[tuple[str, ...], Parameter(name=["--label", "-l"])]


def push(policy: Path, *, stage: bool = False, where: Where | None = None) -> int:
    """Register a policy with the verifier.

    Examples:
        attestctl policy push policies/web

        attestctl policy push policies/web --stage

    Args:
        policy: policy file, signed policy, or folder with policy.yaml.
        stage: keep the revision beside the current one; it judges only where it is assigned.
    """
    at = where or Where()
    try:
        source = read_policy_source(policy)
    except VtpmAttestError as error:
        output.fail(error)
    content = source.encode() if isinstance(source, str) else source
    path = "/v1/policies" + ("?current=false" if stage else "")
    reply = at.ask(lambda remote: remote.upload(path, content, "application/yaml"))
    if at.json:
        output.print_json(reply)
    else:
        output.out.print(f"{reply['id']}: revision {reply['revision']}")
    return 0


def assign(
    policy_id: str,
    *,
    label: Labels = (),
    mode: Literal["enforce", "warn", "observe"] = "enforce",
    revision: str | None = None,
    priority: int = 0,
    where: Where | None = None,
) -> int:
    """Let a policy judge every attester with these labels, or change how it does.

    To roll out a change in stages: push it with --stage, assign that revision with --mode observe, then warn,
    then enforce; `attestctl verdict` shows what it would have said.

    Examples:
        attestctl policy assign web --label tier=web

        attestctl policy assign web --label tier=web --revision 9f2c... --mode observe

    Args:
        policy_id: id of a registered policy.
        label: KEY=VALUE, all of which an attester must have; none: everyone.
        mode: enforce (its findings are the verdict), warn (they can make it a warning) or observe (shown only).
        revision: pin this revision (SHA-256, 64 digits); the current one otherwise, whichever that is.
        priority: of several enforced policies that match, the highest decides.
    """
    at = where or Where()
    try:
        selector = parse_selector(label)
    except VtpmAttestError as error:
        output.fail(error)
    body = {"policy": policy_id, "mode": mode, "priority": priority, "selector": selector}
    if revision is not None:
        body["revision"] = revision
    reply = at.ask(lambda remote: remote.put("/v1/assignments", body))
    if at.json:
        output.print_json(reply)
    else:
        output.out.print(_table([reply]))
    return 0


def assignments(*, attester: str | None = None, where: Where | None = None) -> int:
    """List which policies are assigned to which labels, or what judges one attester and why.

    Examples:
        attestctl policy assignments

        attestctl policy assignments --attester 3f0c...

    Args:
        attester: id as `attestctl attesters` lists it.
    """
    at = where or Where()
    if attester is not None:
        path = f"/v1/attesters{path_of(attester, 'policies')}"
        reply = at.ask(lambda remote: remote.get(path))
    else:
        reply = at.ask(lambda remote: remote.get("/v1/assignments"))
    if at.json:
        output.print_json(reply)
    elif attester is not None:
        _show_resolution(reply)
    elif reply["assignments"]:
        output.out.print(_table(reply["assignments"]))
    else:
        output.out.print("nothing is assigned by label; the default policy judges everyone else")
    return 0


def unassign(assignment_id: str, *, where: Where | None = None) -> int:
    """Take an assignment back.

    Example:
        attestctl policy unassign asg-...

    Args:
        assignment_id: id as `attestctl policy assignments` lists it.
    """
    at = where or Where()
    at.ask(lambda remote: remote.delete(f"/v1/assignments{path_of(assignment_id)}"))
    if at.json:
        output.print_json({"assignment_id": assignment_id, "removed": True})
    else:
        output.out.print(f"{assignment_id} is removed")
    return 0


def label(attester_id: str, *labels: str, none: bool = False, where: Where | None = None) -> int:
    """Show the labels of an attester, or replace them all.

    Examples:
        attestctl label 3f0c...

        attestctl label 3f0c... tier=web env=prod

    Args:
        attester_id: id as `attestctl attesters` lists it.
        labels: KEY=VALUE; labels that are not named go.
        none: take all labels away.
    """
    at = where or Where()
    path = f"/v1/attesters{path_of(attester_id)}"
    try:
        wanted = parse_selector(labels)
    except VtpmAttestError as error:
        output.fail(error)
    if wanted or none:
        reply = at.ask(lambda remote: remote.put(f"{path}/labels", {"labels": wanted}))
    else:
        reply = at.ask(lambda remote: remote.get(path))
    if at.json:
        output.print_json({"attester_id": reply["id"], "labels": reply["labels"]})
    else:
        output.out.print(f"{reply['id']}: {escape(_labels(reply['labels']) or 'no labels')}")
    return 0


def _table(rows: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "labels", "mode", "policy", "revision", "priority", "changed"):
        table.add_column(column, no_wrap=column != "labels", overflow="fold")
    for row in rows:
        table.add_row(
            row["id"],
            escape(_labels(row.get("selector", {})) or "everyone"),
            row["mode"],
            row["policy"],
            _revision(row),
            str(row.get("priority", 0)),
            output.when(row["changed_at"]),
        )
    return table


def _show_resolution(reply: Mapping[str, Any]) -> None:
    decides = reply.get("policy")
    why = {
        "attester": "assigned to this attester",
        "assignment": f"by assignment {reply.get('assignment')}",
        "default": "the default policy",
    }
    output.out.print(f"{reply['attester']}: {escape(_labels(reply['labels']) or 'no labels')}")
    if decides is None:
        output.out.print("no policy decides: its verdicts are none; assign one, or set a default policy")
    else:
        output.out.print(
            f"[bold]{decides['id']}[/] ({_revision(decides)}) decides: {why[str(reply.get('origin'))]}"
        )
    for each in reply.get("tried", ()):
        output.out.print(
            f"{each['id']} ({_revision(each)}) is tried, mode {each['mode']}, by assignment {each['assignment']}"
        )


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _revision(row: Mapping[str, Any]) -> str:
    return str(row["revision"])[:16] if row.get("revision") else "current"
