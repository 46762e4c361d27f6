"""A verdict as a signed EAR, in the form the client asks for."""

from __future__ import annotations

from typing import Final

from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.service.ear_claims import PROFILES, Profile
from verifier.service.model import VerdictView
from verifier.web.routing import Call, Reply

EAR_MEDIA_TYPE: Final = "application/eat+jwt"
CWT_MEDIA_TYPE: Final = "application/eat+cwt"
_JWT_ACCEPTED: Final = (EAR_MEDIA_TYPE, "application/eat-jwt")


def ear_form(call: Call) -> str | None:
    """Which EAR the client asks for, told from every other by profile and audience; None: it asks for none."""
    if call.accepts(CWT_MEDIA_TYPE):
        kind = "cwt"
    elif any(call.accepts(media_type) for media_type in _JWT_ACCEPTED):
        kind = "jwt"
    else:
        return None
    return f"{kind} {_profile(call).name} {call.query.audience}"


async def ear_reply(
    call: Call, view: VerdictView, nonce: str | None, etag: str | None = None
) -> Reply | None:
    """The EAR; None where the client asks for none.

    The query of the route has `profile` and `audience`.

    Raises:
        EvidenceError: `malformed-request`: the older profile as a CWT.
    """
    if ear_form(call) is None:
        return None
    ear, now, audience = call.services.ear, call.services.clock.now(), call.query.audience
    if not call.accepts(CWT_MEDIA_TYPE):
        token = await ear.issue(view, now, nonce, audience=audience, profile=_profile(call))
        return Reply(body=token.encode(), media_type=EAR_MEDIA_TYPE, etag=etag)
    if _profile(call) is not Profile.IETF:
        raise EvidenceError(
            Reason.MALFORMED_REQUEST,
            "the older profile is a JWT; ask for application/eat+jwt",
            structure="query",
        )
    return Reply(
        body=await ear.issue_cwt(view, now, nonce, audience=audience), media_type=CWT_MEDIA_TYPE, etag=etag
    )


def _profile(call: Call) -> Profile:
    name = call.query.profile
    return Profile.IETF if name is None else PROFILES[name]
