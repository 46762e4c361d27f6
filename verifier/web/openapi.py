"""OpenAPI 3.1 from the very types that parse the requests, and the route table that dispatches them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from verifier.reasons import Reason
from verifier.web.messages import NoQuery
from verifier.web.problems import PROBLEM_MEDIA_TYPE, status_of
from verifier.web.routing import Access, Route
from verifier.web.wire_codec import JSON, MSGPACK, Problem, Verdict

_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_EAR: Final = "application/eat+jwt"
_ALWAYS: Final = (Reason.MALFORMED_REQUEST, Reason.INTERNAL_FAULT, Reason.VERIFIER_UNAVAILABLE)


def build_document(routes: Iterable[Route], version: str, server: str) -> dict[str, Any]:
    """The OpenAPI document of these routes; raises when two messages share a name."""
    routes = tuple(routes)
    used = (
        kind for route in routes for kind in (route.request, route.response, route.query) if kind is not None
    )
    names: list[type[Any]] = [*dict.fromkeys(used), Problem]
    references, components = msgspec.json.schema_components(names, ref_template=_REF)
    schemas = dict(zip(names, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vtpm-attest verifier",
            "version": version,
            "description": "Remote attestation of machines with a TPM 2.0: enrol, attest, ask for verdicts."
            " Errors are RFC 9457 problem documents with a stable `code`. Bodies are JSON or MessagePack and"
            " may be compressed (`Content-Encoding: gzip` or `zstd`).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "API token `vta1.…` with a scope",
                }
            },
        },
    }


def _operation(
    route: Route, schemas: Mapping[type[Any], Any], components: Mapping[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": _who(route),
        "parameters": [
            *_path_parameters(route.path),
            *_query_parameters(route, components),
            *_header_parameters(route),
        ],
        "responses": _responses(route, schemas),
        "security": [] if isinstance(route.access, Access) else [{"token": []}],
    }
    if not operation["parameters"]:
        del operation["parameters"]
    if route.has_body:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": _request_content(route, schemas),
        }
    return operation


def _who(route: Route) -> str:
    if route.access is Access.PUBLIC:
        return "Anyone may call this."
    if route.access is Access.AGENT:
        return "For agents; the body authenticates itself (join token, activation proof or quote)."
    return f"Needs a token with one of the scopes: {', '.join(sorted(route.access))}."


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]


def _query_parameters(route: Route, components: Mapping[str, Any]) -> list[dict[str, Any]]:
    if route.query is NoQuery:
        return []
    schema = components[route.query.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": _not_null(value),
        }
        for name, value in schema["properties"].items()
    ]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": header.name,
            "in": "header",
            "required": False,
            "description": header.description,
            "schema": {"type": "string", "pattern": header.pattern},
        }
        for header in route.headers
    ]


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is absent or has a value; there is no null in a query string."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return {**{k: v for k, v in schema.items() if k not in {"anyOf", "default"}}, **kinds[0]}
    if None in schema.get("enum", ()):
        return {"enum": [value for value in schema["enum"] if value is not None]}
    return schema


def _request_content(route: Route, schemas: Mapping[type[Any], Any]) -> dict[str, Any]:
    if route.request is None:
        return {str(route.request_media_type): {"schema": {"type": "string"}}}
    return {media_type: {"schema": schemas[route.request]} for media_type in (JSON, MSGPACK)}


def _responses(route: Route, schemas: Mapping[type[Any], Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.response is not None:
        success["content"] = {
            media_type: {"schema": schemas[route.response]} for media_type in (JSON, MSGPACK)
        }
        if route.response is Verdict:
            success["content"][_EAR] = {"schema": {"type": "string"}}
    elif route.status != HTTPStatus.NO_CONTENT:
        success["content"] = {route.media_type: {}}
    responses = {str(route.status): success}
    if route.conditional:
        responses["304"] = {"description": "Not changed since the ETag that was sent"}
    for status, reasons in _refusals(route).items():
        responses[str(status)] = {
            "description": "; ".join(sorted(reasons)),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schemas[Problem]}},
        }
    return responses


def _refusals(route: Route) -> dict[int, set[str]]:
    reasons = [*_ALWAYS, *route.reasons]
    if not route.probe:
        reasons.append(Reason.RATE_LIMITED)
    if not isinstance(route.access, Access):
        reasons += [Reason.UNAUTHENTICATED, Reason.FORBIDDEN]
    if _PARAMETER.search(route.path) or route.media_type == "application/x-pem-file":
        reasons.append(Reason.NOT_FOUND)
    if route.has_body:
        reasons += [Reason.BODY_TOO_LARGE, Reason.UNSUPPORTED_MEDIA_TYPE]
    result: dict[int, set[str]] = {}
    for reason in reasons:
        result.setdefault(int(status_of(reason)), set()).add(reason.value)
    if route.has_body:
        result[int(HTTPStatus.REQUEST_TIMEOUT)] = {Reason.MALFORMED_REQUEST.value}
    return dict(sorted(result.items()))
