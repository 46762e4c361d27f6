"""Dry run of a policy: whose verdict would change, and why. Nothing is stored or changed by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from msgspec import Meta

from verifier.errors import EvidenceError, PolicyError
from verifier.ports import AttesterRecord
from verifier.reasons import Reason
from verifier.service.dry_run import DryRunPage, Selection, Trial
from verifier.service.trial import Tried, Trouble
from verifier.web.messages import Body, Cursor, Label, PolicyId, Revision
from verifier.web.routing import OPERATORS, Call, Reply, Route

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
    before: TierName
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


async def dry_run(call: Call) -> Reply:
    """Try a policy on stored evidence."""
    query: DryRunQuery = call.query
    policy_id = call.request.match_info["id"]
    if call.body is not None and query.revision is not None:
        raise EvidenceError(
            Reason.MALFORMED_REQUEST,
            "send a policy, or name a stored revision; not both",
            structure="revision",
        )
    if query.all and (query.assigned is not None or query.label is not None):
        raise EvidenceError(Reason.MALFORMED_REQUEST, "it excludes `label` and `assigned`", structure="all")
    if call.body is None:
        source = (await call.services.policies.get(call.tenant, policy_id, query.revision)).source
    else:
        source = _text(call.body)
    page = await call.services.dry_runs.page(
        call.tenant, policy_id, source, _selection(query, policy_id), query.cursor, query.limit
    )
    return Reply(body=page_message(page))


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise PolicyError(f"not UTF-8 at byte {error.start}") from error


def _selection(query: DryRunQuery, policy_id: str) -> Selection:
    if query.all:
        return Selection()
    label = None
    if query.label is not None:
        key, _, value = query.label.partition("=")
        label = (key, value)
    named = query.assigned if query.assigned is not None or label is not None else policy_id
    return Selection(label=label, assigned=named)


def page_message(page: DryRunPage) -> DryRunReply:
    """A page as the API shows it."""
    tally = _Tally()
    for trial in page.trials:
        tally.add(trial)
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


class _Tally:
    """What a page's attesters come to."""

    def __init__(self) -> None:
        self.unchanged = 0
        self.changes: list[DryRunChange] = []
        self.unjudged: list[DryRunUnjudged] = []
        self.groups: dict[tuple[str | None, str], _Group] = {}

    def add(self, trial: Trial) -> None:
        attester, outcome = trial.attester, trial.outcome
        if not isinstance(outcome, Tried):
            self.unjudged.append(
                DryRunUnjudged(
                    attester_id=attester.id,
                    code=outcome.code.value,
                    detail=outcome.detail,
                    hostname=attester.identity.hostname,
                )
            )
            return
        self._count(attester, outcome)
        if outcome.tier is outcome.before and not outcome.new and not outcome.gone:
            self.unchanged += 1
        else:
            self.changes.append(_change(attester, outcome))

    def _count(self, attester: AttesterRecord, outcome: Tried) -> None:
        name = attester.identity.hostname or attester.id
        new = {(each.rule, each.code) for each in outcome.new}
        troubles = {(each.rule, each.code): each for each in reversed(outcome.troubles)}
        for key, trouble in troubles.items():
            group = self.groups.setdefault(key, _Group(trouble))
            group.guests += 1
            group.new += key in new
            (group.examples if key in new else group.others).append(name)
        for key, trouble in {(each.rule, each.code): each for each in outcome.gone}.items():
            if key not in troubles:
                group = self.groups.setdefault(key, _Group(trouble))
                group.gone += 1
                group.others.append(name)


def _change(attester: AttesterRecord, outcome: Tried) -> DryRunChange:
    kind: Literal["better", "worse", "other-reasons"] = "other-reasons"
    if outcome.tier is not outcome.before:
        kind = "better" if outcome.tier < outcome.before else "worse"
    listed = max(len(outcome.new) - MAX_TROUBLES, 0) + max(len(outcome.gone) - MAX_TROUBLES, 0)
    return DryRunChange(
        attester_id=attester.id,
        change=kind,
        before=outcome.before.label,  # type: ignore[arg-type]  # the labels are these literals, kept by a test
        after=outcome.tier.label,  # type: ignore[arg-type]  # as above
        new=_findings(outcome.new),
        gone=_findings(outcome.gone),
        more=listed,
        hostname=attester.identity.hostname,
        lifecycle=attester.lifecycle.value,
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


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/policies/{id}/dry-run",
        access=OPERATORS,
        handler=dry_run,
        summary="What a policy (the body, or a stored revision) would make of stored evidence; a page at a time, nothing changes",
        request_media_type=YAML,
        body_optional=True,
        query=DryRunQuery,
        response=DryRunReply,
        reasons=(Reason.POLICY_INVALID,),
    ),
)
