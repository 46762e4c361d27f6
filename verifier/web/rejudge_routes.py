"""The fleet judged again after a policy has changed: a page at a time, from stored evidence."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

from msgspec import Meta

from verifier.ports_rejudge import RejudgingRecord
from verifier.service.fleet_rejudge import RejudgeCommand, RejudgePage
from verifier.service.rejudgings import BeginCommand
from verifier.web.dry_run_messages import (
    DryRunChange,
    DryRunCounts,
    DryRunReason,
    DryRunUnjudged,
    Tally,
    reply,
)
from verifier.web.messages import Body, Cursor
from verifier.web.routing import OPERATORS, WATCHERS, Call, Reply, Route
from verifier.web.wire_codec import rfc3339, rfc3339_or_none

_SLICE: Final = 50
"""Outcomes counted before others get their turn on the event loop."""


class RejudgeQuery(Body, frozen=True):
    """Whom to judge again: those that the policy judges now, whether it decides or is tried."""

    all: bool = False
    """Every attester instead, each by the policies that judge it now."""
    reason: Annotated[str, Meta(max_length=500)] = ""
    """Why; for the audit log."""
    cursor: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 200
    """How many attesters to look at."""


class RejudgeCounts(DryRunCounts, frozen=True, kw_only=True):
    """How many attesters of this page are what."""

    stored: int
    """New verdicts; one that would say exactly what the last one says is not stored."""
    stale: int
    """Their verdict has run out: only evidence of their own can make that good."""
    moved: int
    """They attested, or were revoked, while they were judged again, and were left alone."""


class RejudgeReply(Body, frozen=True):
    """What became of one page of attesters; `cursor` leads to the next and is absent on the last."""

    policy: str
    revision: str
    """The current one."""
    counts: RejudgeCounts
    reasons: list[DryRunReason]
    changes: list[DryRunChange]
    unjudged: list[DryRunUnjudged]
    """Their old verdict stands until it runs out."""
    cursor: str | None = None


async def rejudge(call: Call) -> Reply:
    """Judge stored evidence by the policies in force, and put what comes of it in the place of the latest verdicts."""
    query: RejudgeQuery = call.query
    command = RejudgeCommand(
        tenant=call.tenant,
        policy_id=call.request.match_info["id"],
        everyone=query.all,
        cursor=query.cursor,
        limit=query.limit,
        actor=call.caller.id,
        reason=query.reason,
    )
    return Reply(body=await _message(await call.services.rejudging.page(command)))


async def _message(page: RejudgePage) -> RejudgeReply:
    tally = Tally()
    for number, trial in enumerate(page.trials, 1):
        tally.add(trial)
        if number % _SLICE == 0:
            await asyncio.sleep(0)
    said = reply(page, tally)
    counts = {name: getattr(said.counts, name) for name in DryRunCounts.__struct_fields__}
    return RejudgeReply(
        policy=said.policy,
        revision=said.revision,
        counts=RejudgeCounts(**counts, stored=page.stored, stale=page.stale, moved=page.moved),
        reasons=said.reasons,
        changes=said.changes,
        unjudged=said.unjudged,
        cursor=said.cursor,
    )


class RejudgingQuery(Body, frozen=True):
    """Whom to judge again, and why."""

    all: bool = False
    """Every attester, each by the policies that judge it now; else those whom this policy judges."""
    reason: Annotated[str, Meta(max_length=500)] = ""
    """For the audit log."""


class Rejudging(Body, frozen=True):
    """How far the fleet is judged again in the background after a change of this policy."""

    policy: str
    id: str
    """Another one each time that it begins anew."""
    state: Literal["running", "done", "stopped"]
    everyone: bool
    actor: str
    reason: str
    started_at: str
    counts: dict[str, int]
    """Attesters so far: `examined`, and of them `stored` (a new verdict; `stored_affirming` and so on by tier), `unjudged`,
    `moved`, `stale`, `not_selected`, `never_attested`, `not_heard`."""
    total: int
    """Attesters that there are now; about as many will be examined."""
    finished_at: str | None = None
    problem: str | None = None
    """Why it ended before everyone was looked at."""


async def begin(call: Call) -> Reply:
    """Go through the fleet in the background; whatever was under way for this policy ends."""
    query: RejudgingQuery = call.query
    command = BeginCommand(
        tenant=call.tenant,
        policy_id=call.request.match_info["id"],
        everyone=query.all,
        actor=call.caller.id,
        reason=query.reason,
    )
    record = await call.services.rejudgings.begin(command)
    return Reply(body=await _rejudging(call, record), status=202)


async def progress(call: Call) -> Reply:
    """How far that is."""
    record = await call.services.rejudgings.get(call.tenant, call.request.match_info["id"])
    return Reply(body=await _rejudging(call, record))


async def stop(call: Call) -> Reply:
    """Judge nobody else again."""
    await call.services.rejudgings.stop(call.tenant, call.request.match_info["id"], call.caller.id)
    return Reply(body=None, status=204)


async def _rejudging(call: Call, record: RejudgingRecord) -> Rejudging:
    counts = await call.services.fleet.status(call.tenant)
    return Rejudging(
        policy=record.policy_id,
        id=record.id,
        state=_state(record),
        everyone=record.everyone,
        actor=record.actor,
        reason=record.reason,
        started_at=rfc3339(record.started_at),
        counts={"examined": 0, **record.counts},
        total=sum(counts.values()),
        finished_at=rfc3339_or_none(record.finished_at),
        problem=record.problem,
    )


def _state(record: RejudgingRecord) -> Literal["running", "done", "stopped"]:
    if record.finished_at is None:
        return "running"
    return "done" if record.problem is None else "stopped"


_PATH: Final = "/v1/policies/{id}/rejudging"
ROUTES: Final = (
    Route(
        method="POST",
        path=_PATH,
        access=OPERATORS,
        handler=begin,
        summary="Judge again in the background, from the first attester on; another one of this policy ends",
        query=RejudgingQuery,
        response=Rejudging,
        status=202,
    ),
    Route(
        method="GET",
        path=_PATH,
        access=WATCHERS,
        handler=progress,
        summary="How far the fleet is judged again in the background",
        response=Rejudging,
    ),
    Route(
        method="DELETE",
        path=_PATH,
        access=OPERATORS,
        handler=stop,
        summary="Stop judging again in the background; what was judged stays",
        response=None,
        status=204,
    ),
    Route(
        method="POST",
        path="/v1/policies/{id}/rejudge",
        access=OPERATORS,
        handler=rejudge,
        summary="Judge again, by the policies in force and from stored evidence, whom this policy judges; a page at a time",
        query=RejudgeQuery,
        response=RejudgeReply,
    ),
)
