"""`attestctl policy apply`: make a policy revision current, and judge the fleet again by it from stored evidence."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from verifier.cli import output, policy_rejudging
from verifier.cli.compare import policy_row, table
from verifier.cli.dry_run_view import Report, exit_code, show
from verifier.cli.fleet import Where
from verifier.cli.fleet_pages import each_page
from verifier.cli.remote import HttpError, Remote, RemoteError, path_of
from verifier.errors import VtpmAttestError
from verifier.policy.diff import diff_policies
from verifier.policy.model import Policy
from verifier.policy.source import parse_source
from verifier.policy_files import read_policy_source
from verifier.service.policies import LOOKUP_LIFE
from verifier.web.dry_run_messages import YAML


@dataclass(frozen=True, slots=True)
class _Change:
    """The policy to be applied, and what the verifier has of its id."""

    source: bytes
    policy: Policy
    current: Policy | None

    @property
    def is_new(self) -> bool:
        """Whether another revision is current, or none."""
        return self.current is None or self.current.revision != self.policy.revision

    def rows(self) -> list[dict[str, object]]:
        """What is another than in the current revision."""
        if self.current is None:
            return []
        return [policy_row(change) for change in diff_policies(self.current, self.policy)]


@dataclass(slots=True)
class _Progress:
    """How far a fleet is judged again."""

    report: Report
    cursor: str | None = None

    def take(self, page: Mapping[str, Any]) -> None:
        """One page more is done."""
        self.report.add(page)
        self.cursor = page.get("cursor")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Again:
    """How the fleet is judged again.

    Attributes:
        rejudge: judge the fleet again by the policies in force.
        background: with --rejudge: leave it to the verifier, and do not wait for it.
        everyone: judge everyone again, each by the policies that judge them.
        start: go on where an earlier call was stopped, as it said.
        reason: why, for the audit log.
    """

    rejudge: Annotated[bool, Parameter(negative="")] = False
    background: Annotated[bool, Parameter(negative="")] = False
    everyone: Annotated[bool, Parameter(name="--all", negative="")] = False
    start: Annotated[str | None, Parameter(name="--from")] = None
    reason: str = ""

    def check(self, *, dry_run: bool) -> None:
        """Leave with an explanation where the options do not go together."""
        alone = self.rejudge and not dry_run
        if self.start is not None and not alone:
            output.usage("--from goes on with judging again: pass --rejudge, and leave out --dry-run")
        if self.background and (not alone or self.start is not None):
            output.usage(
                "--background is a way of judging again: pass --rejudge, and neither --dry-run nor --from"
            )

    @property
    def whose(self) -> dict[str, object | None]:
        """The query of a dry run."""
        return {"all": "true" if self.everyone else None}

    @property
    def query(self) -> dict[str, object | None]:
        """The query of judging again."""
        return {**self.whose, "reason": self.reason or None}


def apply(
    policy: Path,
    *,
    again: Again | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    rows: int = 40,
    where: Where | None = None,
) -> int:
    """Make a policy revision current, show what it changes, and judge the fleet again by it.

    Without --rejudge a guest is judged by the new revision at its next attestation. With it the verifier judges the newest
    stored evidence of everyone whom this policy judges, and what comes of it is the verdict from then on. No verdict is
    trusted for longer than before. Ctrl-C stops it between two pages; what was judged again stays, and how to go on is
    said. With --background the verifier goes through the fleet by itself, whether or not this terminal stays:
    `attestctl policy rejudging ID` shows how far it is.

    Exit code: 0 nobody fares worse, 1 some have a warning now, 2 some are contraindicated, 3 some are none or could not be
    judged.

    Examples:
        attestctl policy apply policies/web.yaml --dry-run

        attestctl policy apply policies/web.yaml --rejudge --reason "CVE-2026-1234: dbx of November"

        attestctl policy apply policies/web.yaml --rejudge --background

    Args:
        policy: policy file, signed policy, or folder with policy.yaml.
        again: how the fleet is judged again.
        dry_run: show what would change, for the policy and for the fleet; register and store nothing.
        rows: how many guests to list at most; 0 lists all.
    """
    at, how = where or Where(), again or Again()
    how.check(dry_run=dry_run)
    try:
        source = read_policy_source(policy)
        change = at.ask(lambda remote: _change(remote, source))
    except VtpmAttestError as error:
        output.fail(error)
    if not at.json:
        _show_change(change, dry_run=dry_run)
    document: dict[str, object] = {
        "policy": change.policy.id,
        "revision": change.policy.revision,
        "previous": None if change.current is None else change.current.revision,
        "registered": change.is_new and not dry_run,
        "differences": change.rows(),
    }
    if not dry_run:
        _register(at, change, how)
    report = _follow(at, change, how, policy, document, dry_run=dry_run)
    if at.json:
        output.print_json(document)
    elif report is not None:
        output.out.print()
        show(report, rows)
    return 0 if report is None or _nobody(report) else exit_code(report)


def _register(at: Where, change: _Change, how: Again) -> None:
    if not change.is_new:
        return
    at.ask(lambda remote: remote.upload("/v1/policies", change.source, YAML))
    if how.rejudge and not how.background:
        # Whoever attests to another replica meets the new revision, too.
        time.sleep(LOOKUP_LIFE.total_seconds())


def _follow(
    at: Where, change: _Change, how: Again, file: Path, document: dict[str, object], *, dry_run: bool
) -> Report | None:
    """What it means for the fleet; None where nobody was looked at yet."""
    report = None
    if dry_run:
        report = at.ask(lambda remote: _dry_run(remote, change, how.whose))
        document["dry_run"] = report.document()
    elif how.background:
        begun = at.ask(lambda remote: policy_rejudging.begin(remote, change.policy.id, how.query))
        document["rejudging"] = begun
        if not at.json:
            policy_rejudging.show(begun)
    elif how.rejudge:
        report = at.ask(lambda remote: _rejudge(remote, change.policy.id, how.query, how.start, file))
        document["rejudged"] = report.document()
    return report


def _change(remote: Remote, source: bytes) -> _Change:
    policy = parse_source(source)
    try:
        found = remote.get(f"/v1/policies{path_of(policy.id)}")
    except HttpError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return _Change(source, policy, None)
    return _Change(source, policy, parse_source(found["source"]))


def _show_change(change: _Change, *, dry_run: bool) -> None:
    policy = change.policy
    if not change.is_new:
        output.out.print(f"{policy.id}: revision {policy.revision[:16]} is current already")
        return
    verb = "would become" if dry_run else "becomes"
    if change.current is None:
        output.out.print(f"{policy.id}: revision {policy.revision[:16]} {verb} the first one")
        return
    output.out.print(
        f"{policy.id}: revision {policy.revision[:16]} {verb} current in the place of {change.current.revision[:16]}\n"
    )
    output.out.print(table(change.rows()))


def _dry_run(remote: Remote, change: _Change, query: Mapping[str, object | None]) -> Report:
    report, path = Report(compared=True), f"/v1/policies{path_of(change.policy.id, 'dry-run')}"
    each_page(
        lambda cursor, limit: remote.upload(
            path, change.source, YAML, {**query, "cursor": cursor, "limit": limit}
        ),
        report.add,
        total=remote.get("/v1/status").get("total"),
    )
    return report


def _rejudge(
    remote: Remote, policy_id: str, query: Mapping[str, object | None], start: str | None, file: Path
) -> Report:
    path = f"/v1/policies{path_of(policy_id, 'rejudge')}"
    done = _Progress(Report(compared=True, applied=True), start)
    try:
        each_page(
            lambda cursor, limit: remote.upload(path, b"", YAML, {**query, "cursor": cursor, "limit": limit}),
            done.take,
            total=None if start else remote.get("/v1/status").get("total"),
            start=start,
        )
    except KeyboardInterrupt:
        _tell_how_to_go_on(done, query, file)
        raise
    except RemoteError as error:
        _tell_how_to_go_on(done, query, file)
        output.fail(error)
    return done.report


def _tell_how_to_go_on(done: _Progress, query: Mapping[str, object | None], file: Path) -> None:
    command = ["attestctl", "policy", "apply", str(file), "--rejudge"]
    if query["all"]:
        command.append("--all")
    if query["reason"]:
        command.append(f"--reason={query['reason']}")
    if done.cursor is not None:
        command.append(f"--from={done.cursor}")  # one in 64 begins with a hyphen
    stored, examined = (done.report.counts.get(name, 0) for name in ("stored", "examined"))
    output.remark(
        f"stopped after {examined} guest(s); {stored} new verdict(s) stay. To go on: {shlex.join(command)}"
    )


def _nobody(report: Report) -> bool:
    """An empty fleet is no failure here."""
    return not report.judged and not report.unjudged
