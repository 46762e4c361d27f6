"""What relying parties ask about many attesters at once."""

from __future__ import annotations

from typing import Final

from verifier.service.queries import standing_filter
from verifier.web import query_messages as m
from verifier.web.messages import split_label
from verifier.web.pages import remember_page, unchanged_page
from verifier.web.routing import READERS, Call, Reply, Route


async def verdicts(call: Call) -> Reply:
    """One page of verdicts."""
    query: m.VerdictsQuery = call.query
    least = m.least_of(query.min_tier)
    where = standing_filter(
        label=None if query.label is None else split_label(query.label),
        ek=None if query.ek is None else bytes.fromhex(query.ek),
        uuid=query.uuid,
        least=least,
    )
    remember = remember_page(call)
    page = await call.services.queries.list(call.tenant, where, query.cursor, query.limit)
    lines = await m.verdict_lines(page.items, least)
    return Reply(body=m.VerdictsReply(verdicts=lines, cursor=page.cursor), remember=remember)


async def bulk(call: Call) -> Reply:
    """Verdicts of the attesters that are named."""
    least = m.least_of(call.query.min_tier)
    found = await call.services.queries.bulk(call.tenant, call.body.ids)
    lines = await m.verdict_lines(found.found, least)
    return Reply(body=m.BulkReply(verdicts=lines, unknown=list(found.unknown)))


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/verdicts",
        access=READERS,
        handler=verdicts,
        summary="Latest verdicts as they stand now, by label, EK or SMBIOS UUID, paged",
        query=m.VerdictsQuery,
        response=m.VerdictsReply,
        conditional=True,
        unchanged=unchanged_page,
    ),
    Route(
        method="POST",
        path="/v1/verdicts",
        access=READERS,
        handler=bulk,
        summary="Latest verdicts as they stand now of up to 1,000 attesters",
        query=m.MinTierQuery,
        request=m.VerdictsRequest,
        response=m.BulkReply,
    ),
)
