"""Trust anchors over the API: who may vouch for keys, changed without a restart and on every replica at once."""

from __future__ import annotations

import asyncio
from typing import Final

from verifier.reasons import Reason
from verifier.service.anchor_import import ImportMode, ImportRequest
from verifier.service.trust import parse_purposes
from verifier.web import anchor_messages as m
from verifier.web.routing import OPERATORS, WATCHERS, Call, Reply, Route

MAX_UPLOAD: Final = 16 * 1024 * 1024
"""Bytes of an upload; larger archives go through `attest-verifier anchors import`."""
BINARY: Final = "application/octet-stream"


async def anchor_sets(call: Call) -> Reply:
    """All sets."""
    now = call.services.clock.now()
    sets = await call.services.trust.sets(call.tenant)
    summaries = await asyncio.to_thread(lambda: [m.set_summary(one, now) for one in sets])
    return Reply(body=m.AnchorSetsReply(sets=summaries))


async def anchor_set(call: Call) -> Reply:
    """One set."""
    one = await call.services.trust.get(call.tenant, call.request.match_info["name"])
    return Reply(body=await asyncio.to_thread(m.set_message, one, call.services.clock.now()))


async def import_anchors(call: Call) -> Reply:
    """Trust what is in the body."""
    query: m.AnchorImportQuery = call.query
    request = ImportRequest(
        name=query.set,
        purposes=None if query.purposes is None else parse_purposes(query.purposes.split(",")),
        mode=ImportMode(query.mode),
        source="upload",
    )
    plan = await call.services.trust.import_file(
        call.tenant, request, call.body, call.caller.id, dry_run=query.dry_run
    )
    return Reply(body=m.import_message(plan, call.services.clock.now(), dry_run=query.dry_run))


async def remove_anchors(call: Call) -> Reply:
    """Trust a set, or an anchor, no longer."""
    removed = await call.services.trust.remove(call.tenant, call.request.match_info["name"], call.caller.id)
    return Reply(body=m.removed_message(removed))


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/trust-anchors",
        access=WATCHERS,
        handler=anchor_sets,
        summary="Every set of trust anchors, those of the settings too",
        response=m.AnchorSetsReply,
        conditional=True,
    ),
    Route(
        method="GET",
        path="/v1/trust-anchors/{name}",
        access=WATCHERS,
        handler=anchor_set,
        summary="One set with its certificates and revocation lists",
        response=m.AnchorSetReply,
        conditional=True,
    ),
    Route(
        method="POST",
        path="/v1/trust-anchors",
        access=OPERATORS,
        handler=import_anchors,
        summary="Trust the CA certificates in a file: PEM, DER, PKCS#7, VMCA's download.zip, TrustedTpm.cab",
        query=m.AnchorImportQuery,
        request_media_type=BINARY,
        max_body=MAX_UPLOAD,
        response=m.AnchorImportReply,
        reasons=(Reason.MALFORMED_STRUCTURE, Reason.ANCHORS_REFUSED, Reason.CONFLICT),
    ),
    Route(
        method="DELETE",
        path="/v1/trust-anchors/{name}",
        access=OPERATORS,
        handler=remove_anchors,
        summary="Trust a set (by name) or one anchor (by SHA-256 or its beginning) no longer",
        response=m.AnchorsRemovedReply,
        reasons=(Reason.ANCHORS_REFUSED, Reason.CONFLICT),
    ),
)
