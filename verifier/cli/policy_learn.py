"""`attestctl policy learn`: propose a policy, show how it differs, and whom it would fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from verifier.appraisal.result import Appraisal
from verifier.cli import compare, output
from verifier.cli.bundle import Bundle, read_bundle
from verifier.cli.proof import judge, prove
from verifier.errors import VtpmAttestError
from verifier.findings import Status
from verifier.policy.diff import diff_policies
from verifier.policy.learn import LearnOptions, Style, learn
from verifier.policy.model import Policy
from verifier.policy.parse import parse_policy
from verifier.policy.tolerate import describe
from verifier.policy.writing import Proposal
from verifier.policy_files import load_policy
from verifier.reasons import Tier
from verifier.tcg.algorithms import HashAlg


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A guest under the proposal, and under the policy in force where one is named."""

    name: str
    learned: bool
    after: Appraisal
    before: Appraisal | None

    def document(self) -> dict[str, object]:
        wrong = [finding for finding in self.after.findings if finding.tier is not Tier.AFFIRMING]
        return {
            "bundle": self.name,
            "learned": self.learned,
            "status": self.after.tier.label,
            "status_before": None if self.before is None else self.before.tier.label,
            "rules": sorted({finding.rule or finding.reason.value for finding in wrong}),
            "unproven": sorted(
                {finding.rule for finding in wrong if finding.rule and finding.status is Status.NOT_EVALUATED}
            ),
        }


def learn_command(  # noqa: PLR0913 - each is an option of the command
    *bundles: Path,
    out: Path,
    id: str | None = None,  # noqa: A002 - the option is --id
    description: str = "",
    severity: Literal["contraindicated", "warning"] = "contraindicated",
    style: Style = Style.EVENTS,
    against: Path | None = None,
    check: Annotated[list[Path], Parameter(consume_multiple=True)] | None = None,
    ak: Literal["ecc", "rsa"] = "ecc",
    json: bool = False,
) -> int:
    """Propose a policy from good evidence: constant events become golden, differing ones alternatives.

    You vouch that the evidence is good: every bundle given will be affirming under the result (a warning where its boot
    log has a known quirk: that is tolerated in words, with the PCR's value pinned, and said). Where the events of a
    PCR differ, what they say in all boots (certificates, levels, switches) becomes a rule of its own.

    Examples:
        attestctl policy learn boot1.json boot2.json --out policies/web/policy.yaml

        attestctl policy learn boot1.json --out next.yaml --against policies/web --check guest7.json guest8.json

    Args:
        bundles: files of `attest-agent collect`, or evidence folders.
        out: where to write the policy; reference values go into the same file, or beside `policy.yaml`.
        id: id of the policy; the name of the folder or file by default.
        description: one line for people.
        severity: what a deviation means: contraindicated or warning.
        style: `events` demands every event as it was; `claims` what the events say, so that updates pass.
        against: policy in force: show the difference, and whose verdict would change.
        check: further evidence to judge under the proposal; it is not learned from.
        ak: which quote of an evidence folder to read.
        json: print one JSON document: changes and guests.
    """
    try:
        read = [read_bundle(path, ak=ak) for path in output.progress(bundles, "reading boots")]
        others = [read_bundle(path, ak=ak) for path in check or ()]
        name = id or (out.parent.name if out.name == "policy.yaml" else out.stem)
        options = LearnOptions(
            id=name,
            description=description or f"Learned from {', '.join(bundle.name for bundle in read)}.",
            bank=HashAlg.SHA256,
            severity=severity,
        )
        proposal = learn({bundle.name: prove(bundle) for bundle in read}, options, style)
        parsed = parse_policy(proposal.source)  # what we propose must itself be sound
        current = None if against is None else load_policy(against)
        guests = _judge(read, others, parsed, current)
    except VtpmAttestError as error:
        output.fail(error)
    _write(out, proposal)
    changes = [] if current is None else [compare.policy_row(each) for each in diff_policies(current, parsed)]
    documents = [guest.document() for guest in guests]
    if json:
        output.print_json(
            {
                "id": parsed.id,
                "revision": parsed.revision,
                "tolerated": [what for what, _ in describe(parsed)],
                "changes": changes,
                "guests": documents,
            }
        )
    else:
        output.out.print(
            f"wrote {out}: {len(parsed.rules)} rules from {len(read)} boot(s); read it before you use it"
        )
        for what, each in describe(parsed):
            output.out.print(f"[yellow]tolerates {escape(what)}[/]: {escape(each.quirk.entry.title)}")
            output.out.print(f"  [dim]instead: {escape(each.quirk.entry.remedy)}[/]")
        _show(changes, documents, compared=current is not None)
    return 0


def _judge(
    learned: Sequence[Bundle], others: Sequence[Bundle], proposed: Policy, current: Policy | None
) -> list[_Judged]:
    return [
        _Judged(
            name=bundle.name,
            learned=number < len(learned),
            after=judge(bundle, proposed),
            before=None if current is None else judge(bundle, current),
        )
        for number, bundle in enumerate(output.progress([*learned, *others], "judging"))
    ]


def _write(out: Path, proposal: Proposal) -> None:
    if out.name != "policy.yaml":
        output.write(out, proposal.source.encode())
        return
    output.write(out, proposal.policy.encode())
    values = out.parent / "reference-values.yaml"
    if proposal.reference_values:
        output.write(values, proposal.reference_values.encode())
    else:
        values.unlink(missing_ok=True)  # of an earlier proposal: every reference value must be used


def _show(
    changes: Sequence[Mapping[str, object]], guests: Sequence[Mapping[str, object]], *, compared: bool
) -> None:
    if compared:
        output.out.print(compare.table(changes) if changes else "no difference from the policy in force")
    failing = [guest for guest in guests if guest["status"] != Tier.AFFIRMING.label]
    changed = [guest for guest in guests if guest["status_before"] not in (None, guest["status"])]
    shown = [guest for guest in guests if guest in failing or guest in changed]
    if not shown:
        output.out.print(f"[green]{len(guests)} guest(s) judged, all of them affirming[/]")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("guest", "now", "then", "because of"):
        table.add_column(column, overflow="fold")
    for guest in shown:
        before, rules = guest["status_before"], guest["rules"]
        because = ", ".join(rules) if isinstance(rules, list) else ""
        table.add_row(
            escape(str(guest["bundle"])),
            "" if before is None else output.tier_text(str(before)),
            output.tier_text(str(guest["status"])),
            escape(because),
        )
    output.out.print(table)
    output.out.print(f"{len(failing)} of {len(guests)} guest(s) would not be affirming")
