"""Webhooks over the API: where events are sent, and what did not arrive."""

from __future__ import annotations

from typing import Final

from verifier.ports_events import DeliveryStatus
from verifier.reasons import Reason
from verifier.service.webhooks import WebhookCommand
from verifier.web import event_messages as m
from verifier.web.routing import OPERATORS, Call, Reply, Route


async def webhooks(call: Call) -> Reply:
    """All of them."""
    found = await call.services.webhooks.list(call.tenant)
    return Reply(body=m.WebhooksReply(webhooks=[m.webhook_message(each) for each in found]))


async def webhook(call: Call) -> Reply:
    """One."""
    return Reply(body=m.webhook_message(await call.services.webhooks.get(call.tenant, _id(call))))


async def add_webhook(call: Call) -> Reply:
    """Make one."""
    body: m.NewWebhook = call.body
    command = WebhookCommand(
        url=body.url,
        description=body.description,
        wants=m.filter_of(body.kinds, body.label, body.attester, body.tier),
    )
    record, secret = await call.services.webhooks.add(call.tenant, command, call.caller.id)
    return Reply(status=201, body=m.WebhookMade(secret=secret, webhook=m.webhook_message(record)))


async def remove_webhook(call: Call) -> Reply:
    """Take one away."""
    await call.services.webhooks.remove(call.tenant, _id(call), call.caller.id)
    return Reply(status=204, body=None)


async def deliveries(call: Call) -> Reply:
    """What is on its way, has arrived, or is dead."""
    query: m.DeliveriesQuery = call.query
    status = None if query.status is None else DeliveryStatus(query.status)
    found = await call.services.webhooks.deliveries(call.tenant, _id(call), status, query.before, query.limit)
    more = found[-1].id if len(found) == query.limit else None
    return Reply(body=m.DeliveriesReply(deliveries=[m.delivery_message(each) for each in found], before=more))


async def redeliver(call: Call) -> Reply:
    """Try dead ones again."""
    body: m.Redeliver = call.body
    count = await call.services.webhooks.redeliver(call.tenant, _id(call), body.deliveries, call.caller.id)
    call.services.deliveries.wake.set()
    return Reply(body=m.Redelivered(count=count))


def _id(call: Call) -> str:
    return call.request.match_info["id"]


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/webhooks",
        access=OPERATORS,
        handler=webhooks,
        summary="Where events are sent",
        response=m.WebhooksReply,
    ),
    Route(
        method="POST",
        path="/v1/webhooks",
        access=OPERATORS,
        handler=add_webhook,
        summary="Send events somewhere; the secret they are signed with is in this reply and nowhere else",
        request=m.NewWebhook,
        response=m.WebhookMade,
        status=201,
        reasons=(Reason.CONFLICT,),
    ),
    Route(
        method="GET",
        path="/v1/webhooks/{id}",
        access=OPERATORS,
        handler=webhook,
        summary="One webhook, without its secret",
        response=m.Webhook,
    ),
    Route(
        method="DELETE",
        path="/v1/webhooks/{id}",
        access=OPERATORS,
        handler=remove_webhook,
        summary="Send nothing there any more; what was on its way is dropped",
        response=None,
        status=204,
    ),
    Route(
        method="GET",
        path="/v1/webhooks/{id}/deliveries",
        access=OPERATORS,
        handler=deliveries,
        summary="What is on its way to a webhook, has arrived, or is dead (`?status=dead`), newest first",
        query=m.DeliveriesQuery,
        response=m.DeliveriesReply,
    ),
    Route(
        method="POST",
        path="/v1/webhooks/{id}/redeliver",
        access=OPERATORS,
        handler=redeliver,
        summary="Try dead deliveries again: those named, or all",
        request=m.Redeliver,
        response=m.Redelivered,
    ),
)
