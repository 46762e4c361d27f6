"""What operators and administrators call: policies and tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from verifier.ports import Scope
from verifier.reasons import Reason
from verifier.web import messages as m
from verifier.web.assignment_messages import NewPolicyQuery
from verifier.web.routing import ADMINS, OPERATORS, WATCHERS, Call, Reply, Route

YAML: Final = "application/yaml"


async def policies(call: Call) -> Reply:
    """List policies."""
    records = await call.services.policies.list(call.tenant)
    return Reply(body=m.PoliciesReply(policies=[m.policy_message(r, with_source=False) for r in records]))


async def policy(call: Call) -> Reply:
    """One policy."""
    query: m.PolicyQuery = call.query
    record = await call.services.policies.get(call.tenant, call.request.match_info["id"], query.revision)
    return Reply(body=m.policy_message(record, with_source=True))


async def add_policy(call: Call) -> Reply:
    """Register a revision."""
    record = await call.services.policies.register(
        call.tenant, call.body, call.caller.id, current=call.query.current
    )
    return Reply(status=201, body=m.policy_message(record, with_source=False))


async def tokens(call: Call) -> Reply:
    """List tokens."""
    records = await call.services.tokens.list(call.tenant)
    return Reply(body=m.TokensReply(tokens=[m.token_message(record) for record in records]))


async def add_token(call: Call) -> Reply:
    """Make a token."""
    body: m.TokenRequest = call.body
    record, secret = await call.services.tokens.create(
        tenant=call.tenant,
        scopes=frozenset(Scope(name) for name in body.scopes),
        label=body.label,
        lifetime=None if body.expires_in is None else timedelta(seconds=body.expires_in),
        uses=body.uses,
        actor=call.caller.id,
    )
    return Reply(status=201, body=m.TokenReply(token=secret, info=m.token_message(record)))


async def revoke_token(call: Call) -> Reply:
    """Make a token worthless."""
    await call.services.tokens.revoke(call.tenant, call.request.match_info["id"], call.caller.id)
    return Reply(status=204, body=None)


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/policies",
        access=WATCHERS,
        handler=policies,
        summary="The current revision of every policy",
        response=m.PoliciesReply,
    ),
    Route(
        method="POST",
        path="/v1/policies",
        access=OPERATORS,
        handler=add_policy,
        summary="Register a policy (YAML, or a signed envelope around it) as the current revision of its id",
        query=NewPolicyQuery,
        request_media_type=YAML,
        response=m.Policy,
        status=201,
        reasons=(Reason.POLICY_INVALID, Reason.POLICY_SIGNATURE),
    ),
    Route(
        method="GET",
        path="/v1/policies/{id}",
        access=WATCHERS,
        handler=policy,
        summary="One policy with its source: the current revision, or the one that is asked for",
        query=m.PolicyQuery,
        response=m.Policy,
    ),
    Route(
        method="GET",
        path="/v1/tokens",
        access=ADMINS,
        handler=tokens,
        summary="Tokens, without their secrets",
        response=m.TokensReply,
    ),
    Route(
        method="POST",
        path="/v1/tokens",
        access=ADMINS,
        handler=add_token,
        summary="Make a token; its secret is in this reply and nowhere else",
        request=m.TokenRequest,
        response=m.TokenReply,
        status=201,
    ),
    Route(
        method="DELETE",
        path="/v1/tokens/{id}",
        access=ADMINS,
        handler=revoke_token,
        summary="Revoke a token",
        response=None,
        status=204,
    ),
)
