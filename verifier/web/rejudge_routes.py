"""The fleet judged again after a policy has changed: a page at a time, from stored evidence."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from msgspec import Meta

from verifier.service.fleet_rejudge import RejudgeCommand, RejudgePage
from verifier.web.dry_run_messages import (
    DryRunChange,
    DryRunCounts,
    DryRunReason,
    DryRunUnjudged,
    Tally,
    reply,
)
from verifier.web.messages import Body, Cursor
from verifier.web.routing import OPERATORS, Call, Reply, Route

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


ROUTES: Final = (
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
