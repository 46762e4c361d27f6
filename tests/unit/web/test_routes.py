"""The route table: nothing is reachable that does not say by whom."""

from __future__ import annotations

import re

import pytest
from openapi_spec_validator import validate

from tests.conftest import ROOT
from tests.harness import running, settings_for
from verifier.ports import Scope
from verifier.web.app import ROUTES
from verifier.web.dashboard.handlers import PAGES
from verifier.web.openapi import build_document
from verifier.web.problems import PROBLEM_MEDIA_TYPE
from verifier.web.routing import WATCHERS, Access

SCOPED = [route for route in ROUTES if not isinstance(route.access, Access)]
PUBLIC = {
    "/healthz",
    "/readyz",
    "/v1/ca",
    "/v1/ak-ca",
    "/.well-known/jwks.json",
    "/.well-known/openid-configuration",
    "/openapi.json",
}
AGENT = {
    "/v1/enrollments",
    "/v1/enrollments/{id}/activation",
    "/v1/challenges",
    "/v1/attestations",
    "/v1/secrets/{name}/release",
}


def concrete(path: str) -> str:
    return re.sub(r"\{\w+\}", "some-id", path)


@pytest.fixture
async def verifier(tmp_path):
    async with running(settings_for(tmp_path, LIMITS_REFUSALS_PER_ADDRESS="0")) as harness:
        yield harness


def test_what_needs_no_token_is_exactly_this():
    assert {route.path for route in ROUTES if route.access is Access.PUBLIC} == PUBLIC
    assert {route.path for route in ROUTES if route.access is Access.AGENT} == AGENT
    assert all(route.method == "GET" for route in ROUTES if route.access is Access.PUBLIC)


QUESTIONS = {"/v1/verdicts", "/v1/appraisals"}
"""A body because the question is long; nothing is stored (tests/e2e/test_http_queries.py, test_http_appraisals.py)."""
WITNESSED = {"/v1/log/cosignatures"}
"""What is kept is signed by a witness of the settings, whoever brings it (tests/e2e/test_http_log.py)."""


def test_no_join_token_opens_an_api_route():
    assert all(Scope.JOIN not in route.access for route in SCOPED)
    assert all(Scope.ADMIN in route.access for route in SCOPED)
    changing = [
        route for route in SCOPED if route.method != "GET" and route.path not in QUESTIONS | WITNESSED
    ]
    assert all(route.access <= {Scope.OPERATOR, Scope.ADMIN} for route in changing)


async def test_every_scoped_route_refuses_callers_without_the_scope(verifier):
    """Walks all routes: without a token, with a wrong one, and with every scope that does not suffice."""
    tokens = {scope: await verifier.token(scope) for scope in Scope if scope is not Scope.JOIN}
    join = await verifier.token(Scope.JOIN)
    before = verifier.rows()
    for route in SCOPED:
        path = concrete(route.path)
        for header in ("", "Basic abc", "Bearer", "Bearer x", f"Bearer vta1.{'A' * 43}", f"Bearer {join}"):
            answer = await verifier.call(route.method, path, headers={"Authorization": header})
            assert (answer.status, answer.code) == (401, "unauthenticated"), (route, header)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        for scope, token in tokens.items():
            if scope not in route.access:
                answer = await verifier.call(route.method, path, token=token)
                assert (answer.status, answer.code) == (403, "forbidden"), (route, scope)
    assert verifier.rows() == before


async def test_every_route_of_the_application_is_in_the_table(verifier):
    """A route added past the table would be one without a required scope."""
    served = {
        (resource.method, resource.resource.canonical) for resource in verifier.service.app().router.routes()
    }
    static = {("GET", "/dashboard/static/{hash}/{name}")}
    assert served - {("HEAD", path) for _, path in served} == static | {
        (one.method, one.path) for one in (*ROUTES, *PAGES)
    }


def test_no_page_is_open_to_all_but_those_to_sign_in():
    signing_in = {"/dashboard/login", "/dashboard/oidc/start", "/dashboard/oidc/return"}
    assert {page.path for page in PAGES if page.scopes is None} == signing_in
    assert all(page.scopes <= WATCHERS for page in PAGES if page.scopes is not None)


async def test_every_reply_carries_the_security_headers(verifier):
    for route in ROUTES:
        answer = await verifier.call(route.method, concrete(route.path))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Server"] == "vtpm-attest"
        assert answer.headers["X-Request-Id"]
        assert answer.headers["Cache-Control"] in {"no-store", "private, no-cache", "public, max-age=300"}


def test_the_openapi_document_is_valid_and_describes_every_route():
    document = build_document(ROUTES, "1.0", "https://v.test")
    validate(document)
    assert document["openapi"] == "3.1.0"
    described = {
        (method.upper(), path) for path, operations in document["paths"].items() for method in operations
    }
    assert described == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert operation["security"] == ([] if isinstance(route.access, Access) else [{"token": []}])
        problems = {
            status
            for status, reply in operation["responses"].items()
            if PROBLEM_MEDIA_TYPE in reply.get("content", {})
        }
        assert {"400", "500", "503"} <= problems
        assert ("401" in problems) is (
            not isinstance(route.access, Access) or route.path == "/v1/enrollments"
        )
        assert ("413" in problems) is route.has_body


def test_operation_ids_are_unique_names():
    names = [route.name for route in ROUTES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


async def test_the_served_document_is_the_one_of_the_table(verifier):
    served = await verifier.call("GET", "/openapi.json")
    assert served.json == build_document(ROUTES, served.json["info"]["version"], "https://verifier.test")


async def test_metrics_count_verdicts_and_refusals(verifier):
    guest = await verifier.guest()
    await guest.attest()
    await verifier.call("GET", "/nowhere")
    text = (await verifier.get("/metrics", Scope.DASHBOARD)).content.decode()
    assert 'vtpm_attest_verdicts_total{status="affirming"} 1.0' in text
    assert 'vtpm_attest_problems_total{code="not-found"} 1.0' in text
    assert 'vtpm_attest_request_seconds_count{operation="post_v1_attestations"} 1.0' in text
    assert guest.attester_id not in text


async def test_discovery_leads_to_the_keys_and_the_keys_are_public(verifier):
    discovery = (await verifier.call("GET", "/.well-known/openid-configuration")).json
    assert discovery["issuer"] == "https://verifier.test"
    assert discovery["jwks_uri"] == "https://verifier.test/.well-known/jwks.json"
    (key,) = (await verifier.call("GET", "/.well-known/jwks.json")).json["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


async def test_the_ca_is_the_one_of_the_join_token(verifier):
    import base64
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = (await verifier.call("GET", "/v1/ca")).content
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    fingerprint = (await verifier.token(Scope.JOIN)).split(".")[2]
    assert base64.urlsafe_b64decode(fingerprint + "=") == hashlib.sha256(der).digest()


def test_the_api_page_names_every_route_and_its_scopes():
    page = (ROOT / "docs" / "api.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `") and " /" in line]
    described = {}
    for _, calls, scopes, _ in rows:
        for call in re.findall(r"`([A-Z]+ /[^`]+)`", calls):
            described[call] = {word.strip() for word in scopes.split(",")}
    assert set(described) == {f"{route.method} {route.path}" for route in ROUTES}
    for route in ROUTES:
        words = described[f"{route.method} {route.path}"]
        if isinstance(route.access, Access):
            assert words == {"anyone" if route.access is Access.PUBLIC else "agents"}
        else:
            assert words | {"admin"} == {scope.value for scope in route.access}
