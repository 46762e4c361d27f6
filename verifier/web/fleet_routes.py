"""What relying parties, dashboards and operators call about attesters."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from verifier.ports import DEFAULT_TENANT, FleetFilter, Lifecycle
from verifier.reasons import Reason, Tier
from verifier.web import messages as m
from verifier.web.inventory_messages import opinion_message
from verifier.web.pages import remember_page, unchanged_page
from verifier.web.pem import PEM_CHAIN, pem_chain
from verifier.web.routing import OPERATORS, READERS, WATCHERS, Call, Reply, Route
from verifier.web.wire_codec import verdict_message

_TIERS: Final = {tier.label: tier for tier in Tier}


async def status(call: Call) -> Reply:
    """The fleet in numbers."""
    counts = dict(await call.services.fleet.status(call.tenant))
    return Reply(body=m.StatusReply(counts=counts, total=sum(counts.values())))


async def attesters(call: Call) -> Reply:
    """One page of attesters."""
    query: m.AttestersQuery = call.query
    remember = remember_page(call)
    page = await call.services.fleet.list(call.tenant, _filter(query), query.cursor, query.limit)
    return Reply(
        body=m.AttestersReply(attesters=[m.summary_message(view) for view in page.items], cursor=page.cursor),
        remember=remember,
    )


async def attester(call: Call) -> Reply:
    """One attester."""
    view = await call.services.fleet.attester(call.tenant, _id(call))
    replaces = await call.services.fleet.predecessors(call.tenant, view.attester.id)
    found = await call.services.inventory.about(view.attester)
    message = m.attester_message(view, replaces)
    if found is not None and call.tenant == DEFAULT_TENANT:
        message = replace(message, inventory=opinion_message(found))
    return Reply(body=message)


async def ak_certificate(call: Call) -> Reply:
    """The certificate of its AK, issued or renewed now."""
    view = await call.services.fleet.attester(call.tenant, _id(call))
    issued = call.services.ak_certificates.of(view)
    return Reply(body=pem_chain((issued.certificate, *issued.chain)), media_type=PEM_CHAIN)


async def history(call: Call) -> Reply:
    """Past verdicts."""
    query: m.HistoryQuery = call.query
    views = await call.services.fleet.history(call.tenant, _id(call), query.before, query.limit)
    more = views[-1].record.sequence if len(views) == query.limit else None
    return Reply(body=m.HistoryReply(verdicts=[verdict_message(view) for view in views], before=more))


async def revoke(call: Call) -> Reply:
    """Stop believing an attester."""
    view = await call.services.fleet.revoke(call.tenant, _id(call), call.caller.id)
    return Reply(body=m.attester_message(view))


async def assign_policy(call: Call) -> Reply:
    """Choose the policy of an attester."""
    await call.services.policies.assign(call.tenant, _id(call), call.body.policy, call.caller.id)
    return Reply(body=m.attester_message(await call.services.fleet.attester(call.tenant, _id(call))))


def _id(call: Call) -> str:
    return call.request.match_info["id"]


def _filter(query: m.AttestersQuery) -> FleetFilter:
    tier = None if query.status is None else _TIERS.get(query.status)
    lifecycle = None if query.status is None or tier is not None else Lifecycle(query.status)
    label = None if query.label is None else m.split_label(query.label)
    return FleetFilter(tier=tier, lifecycle=lifecycle, label=label, search=query.search)


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/status",
        access=WATCHERS,
        handler=status,
        summary="The fleet in numbers",
        response=m.StatusReply,
        conditional=True,
    ),
    Route(
        method="GET",
        path="/v1/attesters",
        access=WATCHERS,
        handler=attesters,
        summary="Attesters with their latest verdicts, filtered and paged",
        query=m.AttestersQuery,
        response=m.AttestersReply,
        conditional=True,
        unchanged=unchanged_page,
    ),
    Route(
        method="GET",
        path="/v1/attesters/{id}",
        access=WATCHERS,
        handler=attester,
        summary="One attester: identity, endorsement, latest verdict",
        response=m.Attester,
        conditional=True,
    ),
    Route(
        method="GET",
        path="/v1/attesters/{id}/ak-certificate",
        access=READERS,
        handler=ak_certificate,
        summary="The X.509 certificate of its AK and the chain above it, to check quotes with",
        response=None,
        media_type=PEM_CHAIN,
        reasons=(Reason.AK_CERTIFICATE_WITHHELD,),
    ),
    Route(
        method="GET",
        path="/v1/attesters/{id}/history",
        access=WATCHERS,
        handler=history,
        summary="Verdicts as they were judged, newest first",
        query=m.HistoryQuery,
        response=m.HistoryReply,
    ),
    Route(
        method="POST",
        path="/v1/attesters/{id}/revoke",
        access=OPERATORS,
        handler=revoke,
        summary="Believe nothing this attester says any more",
        response=m.Attester,
    ),
    Route(
        method="PUT",
        path="/v1/attesters/{id}/policy",
        access=OPERATORS,
        handler=assign_policy,
        summary="Assign the policy that judges this attester",
        request=m.AssignPolicy,
        response=m.Attester,
    ),
)
