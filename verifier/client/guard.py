"""The gate as a small service beside a proxy: it answers whether a request may pass, for nginx (`auth_request`) and Envoy (`ext_authz`).

Whatever the method and path, the answer is about the caller alone: 200 with who it is in headers, or 401, 403 or 503 with a problem document.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from aiohttp import web

from verifier.client.aiohttp_gate import caller_of
from verifier.client.gate import Gate
from verifier.client.requirement import Admitted, Denied

ATTESTER_HEADER: Final = "X-Attester-Id"
TIER_HEADER: Final = "X-Attestation-Tier"
POLICY_HEADER: Final = "X-Attestation-Policy"
VALID_HEADER: Final = "X-Attestation-Valid-Until"
PROBLEM_HEADER: Final = "X-Attestation-Problem"
"""The problem document again, in ASCII, for proxies that drop the body of a denial."""
_MAX_PROBLEM: Final = 2048


def guard_app(gate: Gate, on_denied: Callable[[Denied], None] = lambda _: None) -> web.Application:
    """An application that decides about each request it gets; `on_denied` hears of denials."""

    async def decide(request: web.Request) -> web.Response:
        decision = await gate.decide(caller_of(request))
        if isinstance(decision, Denied):
            on_denied(decision)
            headers = decision.headers() | {PROBLEM_HEADER: problem_header(decision)}
            return web.Response(status=decision.status, body=decision.document(), headers=headers)
        return web.Response(headers=admitted_headers(decision))

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", decide)
    return app


def admitted_headers(admitted: Admitted) -> dict[str, str]:
    """Who was let in, for the proxy to pass on in place of what the caller sent under these names."""
    standing = admitted.standing
    return {
        ATTESTER_HEADER: standing.attester_id,
        TIER_HEADER: standing.said.value,
        POLICY_HEADER: "" if standing.policy is None else standing.policy.id,
        VALID_HEADER: standing.valid_until.isoformat(),
        "Cache-Control": "no-store",
    }


def problem_header(denied: Denied) -> str:
    """The problem document in one line of ASCII; without its reasons where it would be too long for a header."""
    document = json.loads(denied.document())
    text = json.dumps(document)
    if len(text) > _MAX_PROBLEM:
        text = json.dumps({name: document[name] for name in ("type", "title", "status", "code")})
    return text
