"""What agents call: enrol, activate, ask for a nonce, attest."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from verifier.errors import RefusedError
from verifier.reasons import Reason
from verifier.service.admission import Party
from verifier.web import wire_codec as wire
from verifier.web.connections import LARGE
from verifier.web.routing import Access, Call, Reply, Route


async def enroll(call: Call) -> Reply:
    """Check EK, AK and join token, and challenge the TPM."""
    address, rates = call.request.remote, call.services.rates
    rates.stranger(address)
    try:
        challenge = await call.services.enrollment.begin(wire.enrollment_command(call.body, address))
    except RefusedError as error:
        if error.reason is Reason.JOIN_TOKEN_INVALID:
            rates.refused(address)
        raise
    return Reply(status=201, body=wire.enrollment_reply(challenge))


async def activate(call: Call) -> Reply:
    """Bind the AK to the EK, or say that a person has to decide."""
    services = call.services
    done = await services.enrollment.activate(call.request.match_info["id"], call.body.proof)
    if done.attester is None or not call.body.want_ak_certificate:
        return Reply(body=wire.activation_reply(done, None))
    view = await services.fleet.attester(done.attester.tenant, done.attester.id)
    certificate = services.ak_certificates.offer(view.attester, view.verdict)
    return Reply(body=wire.activation_reply(done, certificate))


async def challenge(call: Call) -> Reply:
    """Hand out a nonce."""
    return Reply(body=wire.challenge_reply(await call.services.challenges.issue(call.body.attester_id)))


async def attest(call: Call) -> Reply:
    """Judge evidence."""
    call.services.sequencer.check()
    outcome = await call.services.attestations.attest(wire.attest_command(call.body, call.request.remote))
    certificate = None
    if call.body.want_ak_certificate:
        certificate = call.services.ak_certificates.offer(outcome.attester, outcome.verdict)
    return Reply(body=wire.attestation_reply(outcome, certificate))


def attesting(request: web.Request) -> Party:
    """A steady attestation is small; evidence of a boot has its log with it."""
    length = request.content_length
    small = length is not None and length <= LARGE
    return Party.STEADY if small and hdrs.CONTENT_ENCODING not in request.headers else Party.BOOTED


ATTESTATION_REASONS: Final = (
    Reason.NONCE_EXPIRED,
    Reason.NONCE_FOREIGN,
    Reason.NONCE_UNKNOWN,
    Reason.NONCE_REUSED,
    Reason.EVIDENCE_OVERTAKEN,
    Reason.REENROLLMENT_REQUIRED,
    Reason.IDENTITY_REPLACED,
    Reason.NOT_FOUND,
    Reason.ATTESTER_REVOKED,
    Reason.BOOT_LOG_MISSING,
    Reason.IMA_OFFSET_UNKNOWN,
    Reason.QUOTE_MAGIC,
    Reason.QUOTE_TYPE,
    Reason.QUOTE_SIGNATURE,
    Reason.QUOTE_SIGNATURE_ALGORITHM,
    Reason.QUOTE_NONCE,
    Reason.MALFORMED_STRUCTURE,
    Reason.UNSUPPORTED_ALGORITHM,
)
"""Why evidence is refused."""

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/enrollments",
        access=Access.AGENT,
        handler=enroll,
        party=Party.NEW,
        summary="Ask to be enrolled: EK, AK, join token; answers a credential challenge",
        request=wire.EnrollmentRequest,
        response=wire.EnrollmentReply,
        status=201,
        reasons=(
            Reason.JOIN_TOKEN_REQUIRED,
            Reason.JOIN_TOKEN_INVALID,
            Reason.EK_CERTIFICATE_MISSING,
            Reason.EK_CERTIFICATE_MALFORMED,
            Reason.EK_CERTIFICATE_UNTRUSTED,
            Reason.EK_CERTIFICATE_EXPIRED,
            Reason.EK_CERTIFICATE_KEY_MISMATCH,
            Reason.EK_CERTIFICATE_PROFILE,
            Reason.EK_CERTIFICATE_REVOKED,
            Reason.KEY_CERTIFICATE_MISSING,
            Reason.INVENTORY_DISAGREES,
            Reason.ENROLLMENT_REFUSED,
            Reason.ENROLLMENT_QUEUE_FULL,
            Reason.ATTESTER_REVOKED,
            Reason.REENROLLMENT_REQUIRED,
            Reason.EK_ATTRIBUTES,
            Reason.AK_ATTRIBUTES,
            Reason.MALFORMED_STRUCTURE,
            Reason.UNSUPPORTED_ALGORITHM,
        ),
    ),
    Route(
        method="POST",
        path="/v1/enrollments/{id}/activation",
        access=Access.AGENT,
        handler=activate,
        party=Party.BOOTED,
        summary="Prove that the TPM opened the credential; binds the AK to the EK, or waits for a person",
        request=wire.ActivationRequest,
        response=wire.ActivationReply,
        reasons=(
            Reason.ACTIVATION_FAILED,
            Reason.ENROLLMENT_EXPIRED,
            Reason.ENROLLMENT_REFUSED,
            Reason.ATTESTER_REVOKED,
            Reason.RATE_LIMITED,
        ),
    ),
    Route(
        method="POST",
        path="/v1/challenges",
        access=Access.AGENT,
        handler=challenge,
        party=Party.BOOTED,
        summary="Get a single-use nonce and what to quote over it",
        request=wire.ChallengeRequest,
        response=wire.Challenge,
        reasons=(
            Reason.NOT_FOUND,
            Reason.ATTESTER_REVOKED,
            Reason.IDENTITY_REPLACED,
            Reason.REENROLLMENT_REQUIRED,
        ),
    ),
    Route(
        method="POST",
        path="/v1/attestations",
        access=Access.AGENT,
        handler=attest,
        party=attesting,
        summary="Send evidence; answers the verdict and the next challenge",
        request=wire.AttestationRequest,
        response=wire.AttestationReply,
        max_body=wire.MAX_BODY,
        reasons=ATTESTATION_REASONS,
    ),
)
