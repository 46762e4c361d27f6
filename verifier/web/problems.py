"""Errors as RFC 9457 problem documents with stable codes; nothing internal ever leaks into one."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import msgspec

from verifier.errors import EvidenceError, NotFoundError, StoreUnavailable, VerifierFault, VtpmAttestError
from verifier.ports_sign_in import ProviderFault
from verifier.reasons import Reason
from verifier.service.admission import OverloadedError
from verifier.service.rate import RateLimitedError
from verifier.web.wire_codec import Problem

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_RETRY_STORE: Final = 5
_RETRY_QUEUE: Final = 60
_RETRY_PROVIDER: Final = 10

_STATUS: Final = {
    Reason.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Reason.JOIN_TOKEN_REQUIRED: HTTPStatus.UNAUTHORIZED,
    Reason.JOIN_TOKEN_INVALID: HTTPStatus.UNAUTHORIZED,
    Reason.FORBIDDEN: HTTPStatus.FORBIDDEN,
    Reason.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Reason.SECRET_UNKNOWN: HTTPStatus.NOT_FOUND,
    Reason.SECRET_WITHHELD: HTTPStatus.FORBIDDEN,
    Reason.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    Reason.CONFLICT: HTTPStatus.CONFLICT,
    Reason.TIER_NOT_MET: HTTPStatus.FORBIDDEN,
    Reason.BOOT_LOG_MISSING: HTTPStatus.CONFLICT,
    Reason.NONCE_EXPIRED: HTTPStatus.CONFLICT,
    Reason.NONCE_REUSED: HTTPStatus.CONFLICT,
    Reason.EVIDENCE_OVERTAKEN: HTTPStatus.CONFLICT,
    Reason.IMA_OFFSET_UNKNOWN: HTTPStatus.CONFLICT,
    Reason.ENROLLMENT_EXPIRED: HTTPStatus.GONE,
    Reason.EVIDENCE_UNAVAILABLE: HTTPStatus.GONE,
    Reason.BODY_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Reason.UNSUPPORTED_MEDIA_TYPE: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Reason.POLICY_INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.ANCHORS_REFUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.AK_CERTIFICATE_WITHHELD: HTTPStatus.CONFLICT,
    Reason.POLICY_SIGNATURE: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    Reason.ENROLLMENT_QUEUE_FULL: HTTPStatus.TOO_MANY_REQUESTS,
    Reason.VERIFIER_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.INTERNAL_FAULT: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_REFUSED: Final = frozenset(
    {
        Reason.EK_CERTIFICATE_MISSING,
        Reason.EK_CERTIFICATE_MALFORMED,
        Reason.EK_CERTIFICATE_UNTRUSTED,
        Reason.EK_CERTIFICATE_EXPIRED,
        Reason.EK_CERTIFICATE_KEY_MISMATCH,
        Reason.EK_CERTIFICATE_PROFILE,
        Reason.EK_CERTIFICATE_REVOKED,
        Reason.KEY_CERTIFICATE_MISSING,
        Reason.INVENTORY_DISAGREES,
        Reason.EK_ATTRIBUTES,
        Reason.AK_ATTRIBUTES,
        Reason.ACTIVATION_FAILED,
        Reason.ATTESTER_REVOKED,
        Reason.REENROLLMENT_REQUIRED,
        Reason.IDENTITY_REPLACED,
        Reason.ENROLLMENT_REFUSED,
        Reason.QUOTE_SIGNATURE,
        Reason.QUOTE_SIGNATURE_ALGORITHM,
        Reason.AK_UNPROVEN,
        Reason.QUOTE_NONCE,
        Reason.NONCE_UNKNOWN,
        Reason.NONCE_FOREIGN,
    }
)
"""Understood, and refused: 403. Whatever is in neither table could not be read: 400."""


class SlowBodyError(EvidenceError):
    """The client took too long to send its body."""


@dataclass(frozen=True, slots=True)
class ProblemReply:
    """A problem document with its status and headers."""

    status: int
    document: Problem
    headers: dict[str, str] = field(default_factory=dict)


def status_of(reason: Reason) -> HTTPStatus:
    """The HTTP status of a refusal."""
    return HTTPStatus.FORBIDDEN if reason in _REFUSED else _STATUS.get(reason, HTTPStatus.BAD_REQUEST)


def problem_of(error: Exception, request_id: str) -> ProblemReply:
    """What to answer for an error. Of a fault of ours it says that it happened, and under which id it is logged."""
    if isinstance(error, EvidenceError):
        return _evidence(error, request_id)
    if isinstance(error, NotFoundError):
        return problem(Reason.NOT_FOUND, str(error), request_id)
    if isinstance(error, OverloadedError):
        return problem(error.reason, str(error), request_id, retry_after=error.retry_after)
    if isinstance(error, StoreUnavailable):
        detail = "the database cannot be reached; nothing was stored and no verdict was made"
        return problem(Reason.VERIFIER_UNAVAILABLE, detail, request_id, retry_after=_RETRY_STORE)
    if isinstance(error, ProviderFault):
        detail = "who signs bearer tokens cannot be asked now; tokens of this verifier are not concerned"
        return problem(Reason.VERIFIER_UNAVAILABLE, detail, request_id, retry_after=_RETRY_PROVIDER)
    detail = "stored data is damaged" if isinstance(error, VerifierFault) else "an unexpected fault"
    return problem(Reason.INTERNAL_FAULT, f"{detail}; the log has it under this request id", request_id)


def is_ours(error: Exception) -> bool:
    """Whether the fault is the verifier's and belongs into its log as an error."""
    return isinstance(error, VerifierFault) or not isinstance(error, VtpmAttestError)


def problem(
    reason: Reason,
    detail: str,
    request_id: str,
    *,
    status: int | None = None,
    retry_after: int | None = None,
) -> ProblemReply:
    """A problem document for `reason`; its title and remedy come from the dictionary of reasons."""
    entry, code = reason.entry, status or status_of(reason)
    document = Problem(
        type=f"urn:vtpm-attest:problem:{reason.value}",
        title=entry.title,
        status=int(code),
        code=reason.value,
        detail=detail,
        remedy=entry.remedy,
        request_id=request_id,
        retry_after=retry_after,
    )
    extra: dict[str, str] = {}
    if retry_after is not None:
        extra["Retry-After"] = str(retry_after)
    if reason is Reason.UNAUTHENTICATED:
        extra["WWW-Authenticate"] = 'Bearer realm="vtpm-attest"'
    return ProblemReply(int(code), document, extra)


def _evidence(error: EvidenceError, request_id: str) -> ProblemReply:
    retry_after = error.retry_after if isinstance(error, RateLimitedError) else None
    if error.reason is Reason.ENROLLMENT_QUEUE_FULL:
        retry_after = _RETRY_QUEUE
    status = HTTPStatus.REQUEST_TIMEOUT if isinstance(error, SlowBodyError) else None
    reply = problem(error.reason, error.detail, request_id, status=status, retry_after=retry_after)
    document = msgspec.structs.replace(reply.document, structure=error.structure or None, offset=error.offset)
    return ProblemReply(reply.status, document, reply.headers)
