"""Dry run as the API shows it: in numbers, by reason, and guest by guest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from msgspec import Meta

from verifier.reasons import Reason, Tier
from verifier.service.trial import DryRunPage, Trial, Tried, Trouble
from verifier.web.messages import Body, Cursor, Label, PolicyId, Revision

YAML: Final = "application/yaml"
EXAMPLES: Final = 5
MAX_TROUBLES: Final = 20
"""Of one attester; how many there are is told."""
TierName = Literal["affirming", "warning", "contraindicated", "none"]


class DryRunQuery(Body, frozen=True):
    """Whose verdicts to try the policy on; without any of these, on those that a policy of its id judges now."""

    label: Label | None = None
    """`key=value`: only attesters with this label."""
    assigned: PolicyId | None = None
    """Only attesters that the policy of this id judges now, whether it decides or is tried."""
    all: bool = False
    """Every attester."""
    revision: Revision | None = None
    """Try this stored revision instead of a body; without either, the current one."""
    cursor: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 200
    """How many attesters to look at."""


class DryRunCounts(Body, frozen=True):
    """How many attesters of this page are what."""

    examined: int
    unchanged: int
    other_reasons: int
    """The verdict stays, and other findings keep it from affirming."""
    better: int
    worse: int
    unjudged: int
    """Could not be judged again; never counted as good."""
    never_attested: int
    not_heard: int
    """Revoked or retired: no policy changes what is known of them."""
    not_selected: int


class DryRunFinding(Body, frozen=True):
    """What keeps a verdict from affirming. `rule` is absent for the verifier's own checks."""

    code: str
    status: TierName
    """How good a verdict with it can be at best."""
    message: str
    rule: str | None = None
    pcr: int | None = None


class DryRunChange(Body, frozen=True):
    """One attester whose verdict, or the reasons for it, would be others."""

    attester_id: str
    change: Literal["better", "worse", "other-reasons"]
    before: TierName | None
    """None where there is nothing to compare with."""
    after: TierName
    new: list[DryRunFinding]
    """What would keep it from affirming and does not now."""
    gone: list[DryRunFinding]
    more: int = 0
    """Further ones that are not listed."""
    hostname: str | None = None
    lifecycle: Literal["pending", "enrolled", "stale", "revoked", "retired"] = "enrolled"


class DryRunReason(Body, frozen=True):
    """A finding that some attesters would have, counted over this page."""

    code: str
    status: TierName
    message: str
    """Of the first of them."""
    guests: int
    """Attesters it would keep from affirming."""
    new: int
    """Those of them that it does not keep from affirming now."""
    gone: int
    """Attesters it keeps from affirming now and would no longer."""
    examples: list[str]
    """Host names, or ids, of a few; of new ones where there are any."""
    rule: str | None = None


class DryRunUnjudged(Body, frozen=True):
    """One attester that could not be judged again, and why."""

    attester_id: str
    code: str
    detail: str
    hostname: str | None = None


class DryRunReply(Body, frozen=True):
    """What a policy would make of one page of attesters; `cursor` leads to the next and is absent on the last."""

    policy: str
    revision: str
    counts: DryRunCounts
    reasons: list[DryRunReason]
    changes: list[DryRunChange]
    unjudged: list[DryRunUnjudged]
    cursor: str | None = None


def page_message(page: DryRunPage) -> DryRunReply:
    """A page as the API shows it."""
    tally = Tally()
    for trial in page.trials:
        tally.add(trial)
    return reply(page, tally)


def reply(page: DryRunPage, tally: Tally) -> DryRunReply:
    """A page whose trials are counted."""
    for damaged in page.damaged:
        tally.unjudged.append(
            DryRunUnjudged(
                attester_id=damaged.attester_id, code=Reason.EVIDENCE_UNAVAILABLE.value, detail=damaged.detail
            )
        )
    counts = DryRunCounts(
        examined=page.examined,
        unchanged=tally.unchanged,
        other_reasons=sum(one.change == "other-reasons" for one in tally.changes),
        better=sum(one.change == "better" for one in tally.changes),
        worse=sum(one.change == "worse" for one in tally.changes),
        unjudged=len(tally.unjudged),
        never_attested=page.never_attested,
        not_heard=page.not_heard,
        not_selected=page.not_selected,
    )
    return DryRunReply(
        policy=page.policy_id,
        revision=page.revision,
        counts=counts,
        reasons=[group.message() for group in sorted(tally.groups.values(), key=_Group.order)],
        changes=tally.changes,
        unjudged=tally.unjudged,
        cursor=page.cursor,
    )


class _Group:
    """One reason, over all attesters of a page."""

    def __init__(self, trouble: Trouble) -> None:
        self.first = trouble
        self.guests = self.new = self.gone = 0
        self.examples: list[str] = []
        self.others: list[str] = []

    def order(self) -> tuple[int, int, str, str]:
        return -self.new, -self.guests, self.first.rule or "", self.first.code

    def message(self) -> DryRunReason:
        return DryRunReason(
            code=self.first.code,
            status=self.first.tier.label,  # type: ignore[arg-type]  # the labels are these literals, kept by a test
            message=self.first.message,
            guests=self.guests,
            new=self.new,
            gone=self.gone,
            examples=(self.examples or self.others)[:EXAMPLES],
            rule=self.first.rule,
        )


class Tally:
    """What a page's attesters come to."""

    def __init__(self) -> None:
        self.unchanged = 0
        self.changes: list[DryRunChange] = []
        self.unjudged: list[DryRunUnjudged] = []
        self.groups: dict[tuple[str | None, str], _Group] = {}

    def add(self, trial: Trial) -> None:
        """Count one more."""
        outcome = trial.outcome
        if not isinstance(outcome, Tried):
            self.unjudged.append(
                DryRunUnjudged(
                    attester_id=trial.attester_id,
                    code=outcome.code.value,
                    detail=outcome.detail,
                    hostname=trial.hostname,
                )
            )
            return
        self._count(trial.hostname or trial.attester_id, outcome)
        if outcome.tier is (outcome.before or Tier.AFFIRMING) and not outcome.new and not outcome.gone:
            self.unchanged += 1
        else:
            self.changes.append(_change(trial, outcome))

    def _count(self, name: str, outcome: Tried) -> None:
        new = {(each.rule, each.code) for each in outcome.new}
        troubles = {(each.rule, each.code): each for each in reversed(outcome.troubles)}
        for key, trouble in troubles.items():
            group = self._group(key, trouble)
            group.guests += 1
            group.new += key in new
            (group.examples if key in new else group.others).append(name)
        for key, trouble in {(each.rule, each.code): each for each in outcome.gone}.items():
            if key not in troubles:
                group = self._group(key, trouble)
                group.gone += 1
                group.others.append(name)

    def _group(self, key: tuple[str | None, str], trouble: Trouble) -> _Group:
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = _Group(trouble)
        return group


def _change(trial: Trial, outcome: Tried) -> DryRunChange:
    before = outcome.before or Tier.AFFIRMING
    kind: Literal["better", "worse", "other-reasons"] = "other-reasons"
    if outcome.tier is not before:
        kind = "better" if outcome.tier < before else "worse"
    unlisted = max(len(outcome.new) - MAX_TROUBLES, 0) + max(len(outcome.gone) - MAX_TROUBLES, 0)
    return DryRunChange(
        attester_id=trial.attester_id,
        change=kind,
        before=None if outcome.before is None else outcome.before.label,  # type: ignore[arg-type]  # as below
        after=outcome.tier.label,  # type: ignore[arg-type]  # the labels are these literals, kept by a test
        new=_findings(outcome.new),
        gone=_findings(outcome.gone),
        more=unlisted,
        hostname=trial.hostname,
        lifecycle=trial.lifecycle.value,
    )


def _findings(troubles: Iterable[Trouble]) -> list[DryRunFinding]:
    """The gravest first."""
    ordered = sorted(troubles, key=lambda one: (-one.tier, one.rule or "", one.code, one.pcr or 0))
    return [
        DryRunFinding(
            code=one.code,
            status=one.tier.label,  # type: ignore[arg-type]  # the labels are these literals, kept by a test
            message=one.message,
            rule=one.rule,
            pcr=one.pcr,
        )
        for one in ordered[:MAX_TROUBLES]
    ]
