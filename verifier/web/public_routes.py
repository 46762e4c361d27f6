"""What anyone may read: health, the CA to pin, the keys to verify EARs with, the API's description."""

from __future__ import annotations

from typing import Any, Final

import structlog
from aiohttp import web

from verifier.errors import NotFoundError
from verifier.web import messages as m
from verifier.web.pem import PEM_CHAIN, pem_chain
from verifier.web.routing import Access, Call, Handler, Reply, Route

OPENAPI_KEY: Final = web.AppKey("openapi", bytes)
PEM: Final = "application/x-pem-file"
JWKS: Final = "application/jwk-set+json"
_log = structlog.get_logger("vtpm_attest.web")
_KEYS_MAX_AGE: Final = {"Cache-Control": "public, max-age=300"}


async def healthz(call: Call) -> Reply:
    """The process answers."""
    del call
    return Reply(body=m.Health(status="ok"))


async def readyz(call: Call) -> Reply:
    """The store answers, and the log takes verdicts where it has to; 503 otherwise."""
    call.services.sequencer.check()
    await call.services.fleet.ready()
    return Reply(body=m.Health(status="ready"))


async def ca(call: Call) -> Reply:
    """The CA certificate agents pin."""
    if call.config.ca_pem is None:
        raise NotFoundError("CA to pin: this verifier uses a certificate of", "your system's roots")
    return Reply(body=call.config.ca_pem, media_type=PEM)


async def ak_ca(call: Call) -> Reply:
    """The CA certificates above the AK certificates of this verifier."""
    return Reply(body=pem_chain(call.services.ak_certificates.authorities()), media_type=PEM_CHAIN)


async def jwks(call: Call) -> Reply:
    """Public keys of EARs."""
    return Reply(body=call.services.ear.jwks(), media_type=JWKS, headers=_KEYS_MAX_AGE)


async def discovery(call: Call) -> Reply:
    """OpenID Connect discovery, for libraries that start there."""
    issuer = call.config.issuer
    document = {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "scopes_supported": ["openid"],
        "claims_supported": [
            "iss",
            "sub",
            "iat",
            "exp",
            "eat_profile",
            "eat_nonce",
            "ear_verifier_id",
            "submods",
        ],
    }
    return Reply(body=document, headers=_KEYS_MAX_AGE)


async def openapi(call: Call) -> Reply:
    """The description of this API."""
    return Reply(body=call.request.app[OPENAPI_KEY], media_type="application/json")


def _public(
    path: str,
    handler: Handler,
    summary: str,
    response: type[Any] | None,
    media_type: str,
    *,
    probe: bool = False,
) -> Route:
    return Route(
        method="GET",
        path=path,
        access=Access.PUBLIC,
        handler=handler,
        summary=summary,
        response=response,
        media_type=media_type,
        probe=probe,
    )


_JSON: Final = "application/json"

ROUTES: Final = (
    _public("/healthz", healthz, "The process answers", m.Health, _JSON, probe=True),
    _public(
        "/readyz", readyz, "The database answers, so attestations can be stored", m.Health, _JSON, probe=True
    ),
    _public("/v1/ca", ca, "The CA certificate agents pin", None, PEM),
    _public("/v1/ak-ca", ak_ca, "CA certificates above AK certificates, the root last", None, PEM_CHAIN),
    _public("/.well-known/jwks.json", jwks, "Keys to verify EARs with (RFC 7517)", None, JWKS),
    _public("/.well-known/openid-configuration", discovery, "OpenID Connect discovery", None, _JSON),
    _public("/openapi.json", openapi, "This document", None, _JSON),
)
