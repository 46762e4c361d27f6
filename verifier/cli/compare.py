"""`attestctl policy diff` and `attestctl policy explain`: what changed, and what each event was judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from verifier.claims import Binding
from verifier.cli import output
from verifier.cli.appraise import appraise_bundle, finding_document
from verifier.cli.boot_diff import boot_table, compare_boots
from verifier.errors import EvidenceError, VtpmAttestError
from verifier.findings import Finding, Status
from verifier.policy.diff import PolicyChange, diff_policies
from verifier.policy.explain import EventVerdict, beside_events, explain_events
from verifier.policy_files import SIGNED_SUFFIX, load_policy
from verifier.reasons import Reason

_STYLE = {"added": "green", "removed": "red", "changed": "yellow"}


def diff(before: Path, after: Path, *, json: bool = False) -> int:
    """Compare two policies, or two boots event by event. Exit code: 0 no difference, 1 some.

    Examples:
        attestctl policy diff yesterday.json today.json

        attestctl policy diff policies/web.yaml policies/web-next.yaml

    Args:
        before: policy (file or folder with policy.yaml), or evidence (bundle or folder).
        after: the other one, of the same kind.
        json: print one JSON document.
    """
    try:
        if _is_policy(before) != _is_policy(after):
            raise EvidenceError(
                Reason.MALFORMED_REQUEST, "one is a policy and the other evidence; compare like with like"
            )
        policies = _is_policy(before)
        rows = _policies(before, after) if policies else compare_boots(before, after)
    except VtpmAttestError as error:
        output.fail(error)
    if json:
        output.print_json({"before": before.name, "after": after.name, "changes": rows})
    elif rows:
        output.out.print(table(rows) if policies else boot_table(rows))
    else:
        output.out.print("no difference")
    return 1 if rows else 0


def _is_policy(path: Path) -> bool:
    if path.is_dir():
        return (path / "policy.yaml").exists()
    return path.suffix in {".yaml", ".yml"} or path.name.endswith(SIGNED_SUFFIX)


def _policies(before: Path, after: Path) -> list[dict[str, object]]:
    changes = diff_policies(load_policy(before), load_policy(after))
    return [policy_row(change) for change in changes]


def policy_row(change: PolicyChange) -> dict[str, object]:
    """A difference between two policies, for JSON."""
    return {
        "change": change.change.value,
        "where": change.where,
        "before": change.before,
        "after": change.after,
    }


def table(rows: Sequence[Mapping[str, object]]) -> Table:
    """Changes as rows: what, where, before and after."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "where", "before", "after"):
        shown.add_column(column, overflow="fold", no_wrap=not column)
    for row in rows:
        kind = str(row["change"])
        shown.add_row(
            f"[{_STYLE[kind]}]{kind}[/]", str(row["where"]), _cell(row["before"]), _cell(row["after"])
        )
    return shown


def _cell(value: object) -> str:
    return "[dim]nothing[/]" if value is None else escape(str(value))


def explain(bundle: Path, *, policy: Path, json: bool = False) -> int:
    """Show event by event which rule read it, what is proven of it, and what was wrong.

    What did not pass and is no single event's fault stands above the events. Exit code: 0 when every rule passed,
    1 otherwise.

    Example:
        attestctl policy explain bundle.json --policy policies/uki-strict

    Args:
        bundle: file of `attest-agent collect`, or an evidence folder.
        policy: policy file, or folder with policy.yaml.
        json: print one JSON document.
    """
    try:
        result, loaded = appraise_bundle(bundle, policy, ak_trusted=True)
        rules = load_policy(policy)
    except VtpmAttestError as error:
        output.fail(error)
    verdicts = explain_events(rules, result.claims, result.findings) if result.claims is not None else ()
    if json:
        document = {
            "bundle": loaded.name,
            "status": result.tier.label,
            "findings": [finding_document(finding) for finding in beside_events(result.findings)],
            "events": [event_row(v) for v in verdicts],
        }
        output.print_json(document)
    else:
        output.out.print(f"{loaded.name}: {output.tier_text(result.tier.label)}\n")
        show_events(verdicts, beside_events(result.findings))
    return 1 if any(finding.status is not Status.PASSED for finding in result.findings if finding.rule) else 0


def show_events(verdicts: Sequence[EventVerdict], beside: Sequence[Finding]) -> None:
    """Every event with who read it; before it what is wrong with no single one, after it why some are not judged."""
    if beside:
        output.out.print(output.findings_table(map(finding_document, beside)))
        output.out.print()
    reasons = list(dict.fromkeys(v.why_unjudged for v in verdicts if v.why_unjudged and not v.rules))
    notes = {reason: f"not judged ({number})" for number, reason in enumerate(reasons, start=1)}
    output.out.print(event_table(verdicts, notes))
    for number, reason in enumerate(reasons, start=1):
        output.out.print(f"[dim]({number}) {escape(reason)}[/]")


def event_row(verdict: EventVerdict) -> dict[str, object]:
    """One event and who read it, for JSON."""
    event = verdict.event
    return {
        "index": event.index,
        "pcr": event.pcr,
        "type": event.type_name,
        "name": event.name,
        "binding": event.binding.value,
        "text": event.text,
        "rules": list(verdict.rules),
        "broken": list(verdict.broken),
        "why_unjudged": verdict.why_unjudged,
        "findings": [finding_document(finding) for finding in verdict.findings],
    }


def event_table(verdicts: Sequence[EventVerdict], notes: Mapping[str, str] | None = None) -> Table:
    """Events as rows: what each is, how far it is proven, and which rule made what of it.

    `notes` are short words for reasons that explain many events.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, wrap in (
        ("#", False),
        ("PCR", False),
        ("event", True),
        ("proven", False),
        ("judged by", True),
    ):
        table.add_column(column, overflow="fold", no_wrap=not wrap)
    for verdict in verdicts:
        event = verdict.event
        style = "red" if verdict.findings else ("dim" if event.binding is Binding.UNMEASURED else "")
        what = " ".join(part for part in (event.type_name, event.name or "") if part)
        text = f"\n[dim]{escape(event.text)}[/]" if event.text else ""
        table.add_row(
            str(event.index),
            str(event.pcr),
            what + text,
            event.binding.value,
            _judged(verdict, notes or {}),
            style=style,
        )
    return table


def _judged(verdict: EventVerdict, notes: Mapping[str, str]) -> str:
    if verdict.event.binding is Binding.UNMEASURED:
        return "[dim]extends nothing[/]"
    if not verdict.rules:
        why = verdict.why_unjudged or "no rule"
        return f"[dim]{escape(notes.get(why, why))}[/]"
    rules = [f"[red]{rule} (broken)[/]" if rule in verdict.broken else rule for rule in verdict.rules]
    lines = [", ".join(rules), *(_wrong(finding) for finding in verdict.findings)]
    return "\n".join(lines)


def _wrong(finding: Finding) -> str:
    return f"{finding.reason.value}: expected {escape(finding.expected or 'something else')}"
