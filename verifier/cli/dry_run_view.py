"""How what became, or would become, of a fleet is put together from its pages, shown, and turned into an exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.reasons import Tier

_EXAMPLES: Final = 5
_TIERS: Final = {tier.label: tier for tier in Tier}
_ORDER: Final = ("worse", "better", "other-reasons")
_JUDGED: Final = ("unchanged", "other_reasons", "better", "worse")
_WORDS: Final = {
    "worse": "would fare worse",
    "better": "would fare better",
    "other_reasons": "would keep their verdict for other reasons",
    "unchanged": "would see no change",
    "unjudged": "could not be judged",
    "never_attested": "never attested",
    "not_heard": "are revoked or retired",
    "not_selected": "are not selected",
}
_DONE_WORDS: Final = {
    "worse": "fare worse",
    "better": "fare better",
    "other_reasons": "keep their verdict for other reasons",
    "unchanged": "see no change",
    "unjudged": "could not be judged: their old verdict stands until it runs out",
    "moved": "attested, or were revoked, meanwhile",
    "stale": "are stale: only their own evidence can make that good",
    **{name: _WORDS[name] for name in ("never_attested", "not_heard")},
    "not_selected": "are judged by other policies",
}
"""Once it is done."""


@dataclass(slots=True)
class Report:
    """All pages so far.

    Attributes:
        compared: there was a verdict in force to compare with.
        applied: the new verdicts are in force; without, nothing was changed.
    """

    compared: bool
    applied: bool = False
    policy: str = ""
    revision: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[tuple[str | None, str], dict[str, Any]] = field(default_factory=dict)
    changes: list[Mapping[str, Any]] = field(default_factory=list)
    unjudged: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, page: Mapping[str, Any]) -> None:
        """Take one page in, as the API gives it."""
        self.policy, self.revision = page["policy"], page["revision"]
        for name, count in page["counts"].items():
            self.counts[name] = self.counts.get(name, 0) + count
        for reason in page["reasons"]:
            self._add_reason(reason)
        self.changes.extend(page["changes"])
        self.unjudged.extend(page["unjudged"])

    def _add_reason(self, reason: Mapping[str, Any]) -> None:
        known = self.reasons.setdefault((reason.get("rule"), reason["code"]), {**reason, **_NOTHING})
        better_examples = reason["new"] and not known["new"]
        for name in ("guests", "new", "gone"):
            known[name] += reason[name]
        examples = reason["examples"] if better_examples else [*known["examples"], *reason["examples"]]
        known["examples"] = examples[:_EXAMPLES]
        known["status"] = max(known["status"], reason["status"], key=lambda label: _TIERS[label])

    @property
    def judged(self) -> int:
        """How many verdicts were tried."""
        return sum(self.counts.get(name, 0) for name in _JUDGED)

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "policy": self.policy,
            "revision": self.revision,
            "compared": self.compared,
            "counts": self.counts,
            "reasons": self.ordered(),
            "changes": self.changes,
            "unjudged": self.unjudged,
        }

    def ordered(self) -> list[dict[str, Any]]:
        """Reasons, those that most guests would newly have first."""
        return sorted(self.reasons.values(), key=lambda one: (-one["new"], -one["guests"], -one["gone"]))


_NOTHING: Final[Mapping[str, Any]] = {"guests": 0, "new": 0, "gone": 0, "examples": []}


def exit_code(report: Report) -> int:
    """0 nobody fares worse, 1 some warned, 2 some contraindicated, 3 some none, unjudged, or nobody judged at all."""
    worst = [_TIERS[change["after"]] for change in report.changes if change["change"] == "worse"]
    if report.unjudged or not report.judged:
        worst.append(Tier.NONE)
    return output.EXIT_TIER[max(worst, default=Tier.AFFIRMING)]


def show(report: Report, rows: int) -> None:
    """For people: in numbers, why, and who."""
    done = f"judged again, {report.counts.get('stored', 0)} new" if report.applied else "tried"
    output.out.print(
        f"policy {report.policy} revision {report.revision[:16]}, {report.judged} verdict(s) {done}\n"
    )
    for name, words in (_DONE_WORDS if report.applied else _WORDS).items():
        count = report.counts.get(name, 0)
        if count or (name == "worse" and report.judged):
            style = {"worse": "red" if count else "green", "unjudged": "magenta"}.get(name, "")
            output.out.print(f"[{style or 'default'}]{count:>7}[/] {words}")
    if not report.judged and not report.unjudged:
        others = "--all chooses everyone" if report.applied else "--all or --label choose others"
        output.out.print(f"\nnobody was judged: is any guest judged by {report.policy}? {others}")
    if report.reasons:
        output.out.print()
        output.out.print(_reasons(report))
    if report.changes:
        output.out.print()
        output.out.print(_changes(report, rows))
        _more(len(report.changes), rows)
    if report.unjudged:
        output.out.print()
        output.out.print(_unjudged(report.unjudged, rows))
        _more(len(report.unjudged), rows)


def _more(count: int, rows: int) -> None:
    if rows and count > rows:
        output.out.print(f"[dim]{count - rows} more: --rows 0 lists all[/]")


def _reasons(report: Report) -> Table:
    table = _table("rule", "finding", "guests", "new", "gone", "for example")
    for one in report.ordered():
        message = f"{escape(one['message'])}\n[dim]{one['code']}[/]"
        counts = [str(one[name] or "") for name in ("guests", "new", "gone")]
        table.add_row(_name(one), message, *counts, escape(", ".join(one["examples"])))
    return table


def _changes(report: Report, rows: int) -> Table:
    shown = sorted(report.changes, key=lambda one: (_ORDER.index(one["change"]), -_TIERS[one["after"]]))
    old, new = ("before", "now") if report.applied else ("now", "then")
    table = _table("guest", *([old] if report.compared else []), new, "because of")
    for one in shown[: rows or None]:
        now = [output.tier_text(one["before"])] if report.compared else []
        table.add_row(_guest(one), *now, output.tier_text(one["after"]), _because(one))
    return table


def _because(change: Mapping[str, Any]) -> str:
    new = sorted({f"{_name(finding)}" for finding in change["new"]})
    gone = sorted({f"{_name(finding)}" for finding in change["gone"]} - set(new))
    parts = [", ".join(new)] if new else []
    if gone:
        parts.append(f"[dim]no longer {', '.join(gone)}[/]")
    if change.get("more"):
        parts.append(f"[dim]and {change['more']} more[/]")
    return "\n".join(parts)


def _unjudged(unjudged: Sequence[Mapping[str, Any]], rows: int) -> Table:
    table = _table("not judged", "code", "why")
    for one in unjudged[: rows or None]:
        table.add_row(_guest(one), one["code"], escape(one["detail"]))
    return table


def _guest(one: Mapping[str, Any]) -> str:
    hostname = one.get("hostname")
    return f"{escape(hostname)}\n[dim]{one['attester_id']}[/]" if hostname else escape(one["attester_id"])


def _name(finding: Mapping[str, Any]) -> str:
    return escape(finding.get("rule") or finding["code"])


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = column in {"guests", "new", "gone"}
        table.add_column(
            column,
            overflow="fold",
            justify="right" if numeric else "left",
            no_wrap=numeric or column in {"before", "now", "then", "code"},
        )
    return table
