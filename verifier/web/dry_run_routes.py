"""Dry run of a policy: whose verdict would change, and why. Nothing is stored or changed by it."""

from __future__ import annotations

import asyncio
from typing import Final

from verifier.errors import EvidenceError, PolicyError
from verifier.reasons import Reason
from verifier.service.dry_run import Selection
from verifier.service.trial import DryRunPage
from verifier.web.dry_run_messages import YAML, DryRunQuery, DryRunReply, Tally, reply
from verifier.web.routing import OPERATORS, Call, Reply, Route

_SLICE: Final = 50
"""Outcomes counted before others get their turn on the event loop."""


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
    return Reply(body=await _message(page))


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


async def _message(page: DryRunPage) -> DryRunReply:
    """`page_message` with turns for others."""
    tally = Tally()
    for number, trial in enumerate(page.trials, 1):
        tally.add(trial)
        if number % _SLICE == 0:
            await asyncio.sleep(0)
    return reply(page, tally)


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
