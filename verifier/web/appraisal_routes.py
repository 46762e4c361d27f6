"""Background checks: evidence over a relying party's own nonce, judged and forgotten."""

from __future__ import annotations

from typing import Final

from verifier.ports import Scope
from verifier.reasons import Reason
from verifier.web import appraisal_messages as m
from verifier.web.ears import CWT_MEDIA_TYPE, EAR_MEDIA_TYPE, ear_reply
from verifier.web.routing import Call, Reply, Route
from verifier.web.wire_codec import verdict_message

MAX_APPRAISAL: Final = 24 * 1024 * 1024
"""Bytes of an expanded body: in base64, the largest boot log and an IMA list of some hundred thousand entries."""
_ASKERS: Final = frozenset({Scope.RELYING_PARTY, Scope.OPERATOR, Scope.ADMIN})


async def appraise(call: Call) -> Reply:
    """Judge evidence against the caller's nonce."""
    command = m.check_command(call.body, call.request.remote)
    view = await call.services.checks.check(call.tenant, command, call.caller.id)
    ear = await ear_reply(call, view, m.eat_nonce(command.nonce))
    return ear or Reply(body=m.AppraisalReply(nonce=command.nonce, verdict=verdict_message(view)))


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/appraisals",
        access=_ASKERS,
        handler=appraise,
        summary="Background check: evidence over the caller's own nonce, judged now and stored nowhere;"
        f" a signed EAR with `Accept: {EAR_MEDIA_TYPE}` or `{CWT_MEDIA_TYPE}`",
        request=m.AppraisalRequest,
        query=m.AppraisalQuery,
        response=m.AppraisalReply,
        max_body=MAX_APPRAISAL,
        reasons=(
            Reason.AK_UNPROVEN,
            Reason.QUOTE_NONCE,
            Reason.QUOTE_SIGNATURE,
            Reason.EVIDENCE_OVERTAKEN,
            Reason.ATTESTER_REVOKED,
            Reason.IDENTITY_REPLACED,
            Reason.REENROLLMENT_REQUIRED,
            Reason.RATE_LIMITED,
            Reason.MALFORMED_STRUCTURE,
            Reason.UNSUPPORTED_ALGORITHM,
        ),
    ),
)
