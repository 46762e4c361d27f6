"""`attestctl explain | evidence`: what a stored verdict was made from, event by event."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from verifier.cli import output
from verifier.cli.bundle import bundle_of
from verifier.cli.compare import event_row, show_events
from verifier.cli.fleet import EXIT_STATUS, Where, show_verdict
from verifier.cli.proof import prove
from verifier.cli.remote import Remote, RemoteError, path_of
from verifier.errors import EvidenceError, VtpmAttestError
from verifier.policy.explain import EventVerdict, explain_events
from verifier.policy.source import parse_source
from verifier.service.verdicts import read_finding


@dataclass(frozen=True, slots=True)
class _Answers:
    """What the verifier has of one verdict."""

    verdict: Mapping[str, Any]
    bundle: Mapping[str, Any]
    policy: str | None


def explain(attester_id: str, *, sequence: int | None = None, where: Where | None = None) -> int:
    """Show a stored verdict event by event: which rule read what, and how far it is proven.

    Fetches the evidence and the very revision of the policy that judged it (token with scope auditor or operator); the
    reading is recorded in the audit log. Exit code as of `verdict`: 0 affirming, 1 warning, 2 contraindicated, 3 none.

    Examples:
        attestctl explain att-3f0c

        attestctl explain att-3f0c --sequence 12 --json

    Args:
        attester_id: id as `attestctl attesters` lists it.
        sequence: number of an earlier verdict, as `attestctl history` lists it; the latest by default.
    """
    at = where or Where()
    answers = at.ask(lambda remote: _fetch(remote, attester_id, sequence))
    try:
        events, problem = _events(answers)
    except VtpmAttestError as error:
        output.fail(error)
    if at.json:
        output.print_json(
            {**answers.verdict, "events": [event_row(each) for each in events], "problem": problem}
        )
    else:
        number = answers.verdict["sequence"]
        show_verdict({**answers.verdict, "lifecycle": f"verdict {number}, as it was judged"})
        if problem is not None:
            output.out.print(f"\n[yellow]no event is explained:[/] {escape(problem)}")
        elif events:
            output.out.print()
            show_events(events, ())  # what is no event's fault was shown with the verdict
    return EXIT_STATUS[answers.verdict["status"]]


def evidence(attester_id: str, *, out: Path, sequence: int | None = None, where: Where | None = None) -> int:
    """Save the evidence of a stored verdict, as `attest-agent collect` writes it and `attestctl appraise` reads it.

    Needs a token with scope auditor or operator; the reading is recorded in the audit log.

    Examples:
        attestctl evidence att-3f0c --out web-17.json

        attestctl evidence att-3f0c --sequence 12 --out before.json

    Args:
        attester_id: id as `attestctl attesters` lists it.
        out: file to write.
        sequence: number of an earlier verdict; the latest by default.
    """
    at = where or Where()
    bundle = at.ask(lambda remote: _bundle(remote, attester_id, sequence))
    output.write(out, (json_module.dumps(bundle, indent=2) + "\n").encode())
    if at.json:
        output.print_json({"attester_id": attester_id, "sequence": bundle["sequence"], "out": str(out)})
    else:
        output.out.print(
            f"{out}: evidence of verdict {bundle['sequence']}, judged {output.when(bundle['collected_at'])}"
        )
    return 0


def _fetch(remote: Remote, attester_id: str, sequence: int | None) -> _Answers:
    before = None if sequence is None else sequence + 1
    past = remote.get(f"/v1/attesters{path_of(attester_id, 'history')}", {"limit": 1, "before": before})
    verdicts = past["verdicts"]
    if not verdicts or sequence not in {None, verdicts[0]["sequence"]}:
        raise RemoteError(
            f"{attester_id} has no verdict{'' if sequence is None else f' {sequence}'}; see `attestctl history`"
        )
    verdict = verdicts[0]
    policy = verdict.get("policy")
    source = None
    if policy is not None:
        path = f"/v1/policies{path_of(policy['id'])}"
        source = remote.get(path, {"revision": policy["revision"]})["source"]
    return _Answers(verdict, _bundle(remote, attester_id, verdict["sequence"]), source)


def _bundle(remote: Remote, attester_id: str, sequence: int | None) -> dict[str, Any]:
    found: dict[str, Any] = remote.get(
        f"/v1/attesters{path_of(attester_id, 'evidence')}", {"sequence": sequence}
    )
    return found


def _events(answers: _Answers) -> tuple[Sequence[EventVerdict], str | None]:
    """The events with what the stored verdict says of them; or why none can be shown."""
    if answers.policy is None:
        return (), "no policy judged this evidence"
    policy = parse_source(answers.policy)
    findings = [read_finding(finding) for finding in answers.verdict["findings"]]
    try:
        claims = prove(bundle_of(answers.bundle, str(answers.bundle["attester_id"])))
    except EvidenceError as error:
        return (), f"the quote proves nothing ({error.detail})"
    if claims.boot is None:
        return (), "there is no boot log"
    return explain_events(policy, claims, findings), None
