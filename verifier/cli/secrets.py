"""`attestctl secret`: secrets for machines that are affirming, and who may have them."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.cli.assignments import Labels
from verifier.cli.fleet import Where
from verifier.cli.remote import path_of
from verifier.durations import Duration
from verifier.errors import VtpmAttestError
from verifier.policy.assignment import parse_selector

MAX_SECRET: Final = 64 * 1024
app = App(
    name="secret",
    help="Secrets for machines that are affirming: list, show, put, remove, grant, withdraw.",
    help_format="plaintext",
)
_PATH: Final = "/v1/secrets"


@app.default
@app.command(name="list")
def listing(*, where: Where | None = None) -> int:
    """List secrets; never what is in them.

    Example:
        attestctl secret list --json
    """
    at = where or Where()
    reply = at.ask(lambda remote: remote.get(_PATH))
    if at.json:
        output.print_json(reply)
        return 0
    if not reply["secrets"]:
        output.out.print("no secrets")
        return 0
    table = _table("name", "revision", "bytes", "grants", "description", "changed", "by")
    for item in reply["secrets"]:
        table.add_row(
            item["name"],
            str(item["revision"]),
            str(item["size"]),
            str(len(item["grants"])),
            escape(item.get("description", "")),
            output.when(item["changed_at"]),
            escape(item["changed_by"]),
        )
    output.out.print(table)
    return 0


@app.command
def show(name: str, /, *, where: Where | None = None) -> int:
    """Show one secret and who may have it; never what is in it.

    Example:
        attestctl secret show disk-web

    Args:
        name: of the secret.
    """
    at = where or Where()
    reply = at.ask(lambda remote: remote.get(_PATH + path_of(name)))
    if at.json:
        output.print_json(reply)
        return 0
    head = Table(box=None, pad_edge=False, show_header=False)
    head.add_column(style="bold", no_wrap=True)
    head.add_column(overflow="fold")
    for label, value in (
        ("secret", reply["name"]),
        ("description", reply.get("description", "")),
        (
            "content",
            f"{reply['size']} bytes, revision {reply['revision']}, encrypted with key {reply['key']}",
        ),
        ("made", reply["created_at"]),
        ("changed", f"{reply['changed_at']} by {reply['changed_by']}"),
    ):
        head.add_row(label, escape(value))
    output.out.print(head)
    output.out.print("")
    output.out.print(_grants(reply["grants"]) if reply["grants"] else "nobody may have it: no grants")
    return 0


@app.command
def put(
    name: str,
    /,
    *,
    from_file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    description: str | None = None,
    where: Where | None = None,
) -> int:
    """Keep a secret, or another content under its name. Nobody may have a new one until it is granted.

    Example:
        attestctl secret put disk-web --from-file disk.key --description "data volume of web servers"
        attestctl secret put disk-web --from-file -

    Args:
        name: letters, digits, dots, dashes and underscores, at most 64.
        from_file: file with the secret, taken byte for byte (mind a newline at its end), at most 64 KiB; - for stdin.
        description: for people.
    """
    at = where or Where()
    try:
        content = _read(from_file)
    except output.InputError as error:
        output.fail(error)
    body = {"content": base64.b64encode(content).decode()}
    if description is not None:
        body["description"] = description
    reply = at.ask(lambda remote: remote.put(_PATH + path_of(name), body))
    if at.json:
        output.print_json(reply)
        return 0
    output.out.print(f"{reply['name']}: revision {reply['revision']}, {reply['size']} bytes", markup=False)
    if not reply["grants"]:
        output.remark(
            f"nobody may have it yet: attestctl secret grant {name} --attester ID or --label KEY=VALUE"
        )
    return 0


@app.command
def remove(name: str, /, *, where: Where | None = None) -> int:
    """Forget a secret and its grants. Machines keep what they were given.

    Example:
        attestctl secret remove disk-web

    Args:
        name: of the secret.
    """
    at = where or Where()
    at.ask(lambda remote: remote.delete(_PATH + path_of(name)))
    if at.json:
        output.print_json({"name": name, "removed": True})
    else:
        output.out.print(f"{name} is removed", markup=False)
    return 0


@app.command
def grant(
    name: str,
    /,
    *,
    attester: str | None = None,
    label: Labels = (),
    policy: str | None = None,
    uses: int | None = None,
    expires: str | None = None,
    where: Where | None = None,
) -> int:
    """Let attesters have a secret while they are affirming: those that are all that is said here.

    Example:
        attestctl secret grant disk-web --label tier=web --policy web
        attestctl secret grant disk-web --attester att-k4zdsmjqgizdgmbrgaytembr --uses 1 --expires 24h

    Args:
        name: of the secret.
        attester: id as `attestctl attesters` lists it.
        label: KEY=VALUE, all of which an attester must have; can be given several times.
        policy: id of the policy that their verdict has to be given by.
        uses: how many times in all; without it: as often as they ask.
        expires: after so long, as 90s, 5m, 24h, 30d; without it: when it is withdrawn.
    """
    at = where or Where()
    body: dict[str, object] = {}
    if attester is not None:
        body["attester"] = attester
    if policy is not None:
        body["policy"] = policy
    if uses is not None:
        body["uses"] = uses
    try:
        if label:
            body["labels"] = parse_selector(label)
        if expires is not None:
            body["expires_in"] = int(Duration.parse(expires).total_seconds())
    except VtpmAttestError as error:
        output.fail(error)
    except ValueError as error:
        output.usage(f"--expires: {error}")
    reply = at.ask(lambda remote: remote.post(_PATH + path_of(name, "grants"), body))
    if at.json:
        output.print_json(reply)
    else:
        output.out.print(_grants([reply]))
    return 0


@app.command
def withdraw(name: str, grant_id: str, /, *, where: Where | None = None) -> int:
    """Take a grant back. Machines keep what they were given.

    Example:
        attestctl secret withdraw disk-web grt-k4zdsmjqgizdgmbrgaytembr

    Args:
        name: of the secret.
        grant_id: as `attestctl secret show` lists it.
    """
    at = where or Where()
    at.ask(lambda remote: remote.delete(_PATH + path_of(name, "grants", grant_id)))
    if at.json:
        output.print_json({"name": name, "grant": grant_id, "withdrawn": True})
    else:
        output.out.print(f"{grant_id} is withdrawn", markup=False)
    return 0


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(MAX_SECRET + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(MAX_SECRET + 1)
    except OSError as error:
        raise output.InputError(
            f"{file} cannot be read: {error.strerror}; name another with --from-file"
        ) from error
    if not content:
        raise output.InputError(f"{file} is empty: there is no secret in it")
    if len(content) > MAX_SECRET:
        raise output.InputError(
            f"{file} has more than {MAX_SECRET} bytes; keep a key here, and encrypt the file with it"
        )
    return content


def _grants(grants: list[Mapping[str, Any]]) -> Table:
    table = _table("grant", "attester", "labels", "policy", "uses left", "until", "made", "by")
    for item in grants:
        labels = ", ".join(f"{key}={value}" for key, value in item.get("labels", {}).items())
        uses = item.get("uses_left")
        table.add_row(
            item["id"],
            item.get("attester") or "any",
            escape(labels) or "any",
            escape(item.get("policy") or "any"),
            "any number" if uses is None else str(uses),
            output.when(item["expires_at"]) if item.get("expires_at") else "no end",
            output.when(item["created_at"]),
            escape(item["created_by"]),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in {"name", "grant", "attester"}, overflow="fold")
    return table
