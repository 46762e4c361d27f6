"""Secrets over the API: operators put and grant them, and machines that are affirming are given them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.service.admission import Party
from verifier.service.secret_release import NotReleasedError, ReleaseCommand
from verifier.service.secrets import GrantCommand
from verifier.web import secret_messages as m
from verifier.web import wire_codec as wire
from verifier.web.agent_routes import ATTESTATION_REASONS
from verifier.web.dispatch import observe
from verifier.web.routing import AUDITORS, OPERATORS, Access, Call, Reply, Route


async def secrets(call: Call) -> Reply:
    """All of them."""
    found = await call.services.secrets.list(call.tenant)
    return Reply(body=m.SecretsReply(secrets=[m.secret_message(each) for each in found]))


async def secret(call: Call) -> Reply:
    """One."""
    return Reply(body=m.secret_message(await call.services.secrets.get(call.tenant, _name(call))))


async def put_secret(call: Call) -> Reply:
    """Keep one, or another content under its name."""
    body: m.PutSecret = call.body
    kept = await call.services.secrets.put(
        call.tenant, _name(call), body.content, body.description, call.caller.id
    )
    return Reply(body=m.secret_message(kept))


async def remove_secret(call: Call) -> Reply:
    """Forget one."""
    await call.services.secrets.remove(call.tenant, _name(call), call.caller.id)
    return Reply(status=204, body=None)


async def grant(call: Call) -> Reply:
    """Say who may have it."""
    body: m.NewGrant = call.body
    ends = None if body.expires_in is None else timedelta(seconds=body.expires_in)
    command = GrantCommand(
        attester_id=body.attester,
        labels=body.labels,
        policy_id=body.policy,
        uses=body.uses,
        expires_at=None if ends is None else call.services.clock.now() + ends,
    )
    made = await call.services.secrets.grant(call.tenant, _name(call), command, call.caller.id)
    return Reply(status=201, body=m.grant_message(made))


async def withdraw(call: Call) -> Reply:
    """Take a grant back."""
    grant_id = call.request.match_info["id"]
    await call.services.secrets.withdraw(call.tenant, _name(call), grant_id, call.caller.id)
    return Reply(status=204, body=None)


async def release(call: Call) -> Reply:
    """Judge the evidence, and give the secret to a machine that is affirming."""
    body: wire.ReleaseRequest = call.body
    command = ReleaseCommand(
        name=_name(call),
        evidence=wire.attest_command(body.evidence, call.request.remote),
        reply_key=body.reply_key,
    )
    try:
        outcome = await call.services.releases.release(command)
    except NotReleasedError as error:
        observe(wire.verdict_message(error.verdict))
        raise
    certificate = None
    if body.evidence.want_ak_certificate:
        attestation = outcome.attestation
        certificate = call.services.ak_certificates.offer(attestation.attester, attestation.verdict)
    reply = wire.release_reply(outcome, certificate)
    observe(reply.attestation.verdict)
    return Reply(body=reply)


def _name(call: Call) -> str:
    name = call.request.match_info["name"]
    if not wire.is_secret_name(name):
        raise EvidenceError(
            Reason.MALFORMED_REQUEST,
            "a secret's name has 1 to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit",
            structure="name",
        )
    return name


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/secrets",
        access=AUDITORS,
        handler=secrets,
        summary="Secrets for machines, and who may have them; never what is in them",
        response=m.SecretsReply,
    ),
    Route(
        method="GET",
        path="/v1/secrets/{name}",
        access=AUDITORS,
        handler=secret,
        summary="One of them",
        response=m.Secret,
    ),
    Route(
        method="PUT",
        path="/v1/secrets/{name}",
        access=OPERATORS,
        handler=put_secret,
        summary="Keep a secret, or another content under its name; it is encrypted at once, and no call shows it again",
        request=m.PutSecret,
        response=m.Secret,
        reasons=(Reason.CONFLICT,),
    ),
    Route(
        method="DELETE",
        path="/v1/secrets/{name}",
        access=OPERATORS,
        handler=remove_secret,
        summary="Forget a secret and its grants",
        response=None,
        status=204,
    ),
    Route(
        method="POST",
        path="/v1/secrets/{name}/grants",
        access=OPERATORS,
        handler=grant,
        summary="Let attesters have a secret while they are affirming",
        request=m.NewGrant,
        response=m.Grant,
        status=201,
        reasons=(Reason.CONFLICT,),
    ),
    Route(
        method="DELETE",
        path="/v1/secrets/{name}/grants/{id}",
        access=OPERATORS,
        handler=withdraw,
        summary="Take a grant back",
        response=None,
        status=204,
    ),
    Route(
        method="POST",
        path="/v1/secrets/{name}/release",
        access=Access.AGENT,
        handler=release,
        party=Party.BOOTED,
        summary="Ask for a secret with evidence of now; answers the verdict and, if that is affirming, the secret, "
        "encrypted to the TPM and the process that asked",
        request=wire.ReleaseRequest,
        response=wire.ReleaseReply,
        max_body=wire.MAX_BODY,
        reasons=(*ATTESTATION_REASONS, Reason.SECRET_UNKNOWN, Reason.SECRET_WITHHELD, Reason.CONFLICT),
    ),
)
