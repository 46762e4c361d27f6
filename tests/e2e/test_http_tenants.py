"""Walks every route and page with the ids of one tenant and the token of another: nothing is seen, nothing is changed."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from datetime import timedelta

import pytest
import yaml

from tests import pki
from tests.e2e.test_dashboard import look, session
from tests.e2e.test_http_incidents import two_guests
from tests.eventually import eventually
from tests.harness import POLICY, Guest, b64, running, settings_for
from verifier import background
from verifier.errors import StoredDataDamaged
from verifier.ports import Scope
from verifier.web.app import ROUTES
from verifier.web.dashboard.handlers import PAGES
from verifier.web.routing import Access

MARK = "acme-only"
"""In every name that the one tenant gives."""
WITHOUT_END = {"/v1/events", "/dashboard/live"}


@dataclass
class Estate:
    """What the one tenant has."""

    ids: dict[str, dict[str, str]]
    """By the path before the parameter: the parameter's value."""
    marks: set[str]
    """Texts that another tenant must never be shown."""


@pytest.fixture
async def verifier(tmp_path):
    async with running(
        settings_for(tmp_path, "[webhooks]\nallow_http = true\nallow_private = true\n")
    ) as harness:
        yield harness


async def furnish(verifier) -> Estate:
    """One of everything that has an id, in the default tenant."""
    guest, _ = await two_guests(verifier)
    do = lambda method, path, **more: verifier.call(method, path, scope=Scope.ADMIN, **more)  # noqa: E731
    await do("PUT", f"/v1/attesters/{guest.attester_id}/labels", json={"labels": {"role": MARK}})
    policy = yaml.safe_load(POLICY) | {"id": MARK}
    assert (
        await do(
            "POST", "/v1/policies", data=yaml.safe_dump(policy), headers={"Content-Type": "application/yaml"}
        )
    ).status < 300
    assignment = await do(
        "PUT", "/v1/assignments", json={"selector": {"role": MARK}, "policy": MARK, "mode": "observe"}
    )
    token = await do("POST", "/v1/tokens", json={"scopes": ["dashboard"], "label": MARK})
    webhook = await do(
        "POST", "/v1/webhooks", json={"url": f"http://127.0.0.1:9/{MARK}", "description": MARK}
    )
    await do("PUT", f"/v1/secrets/{MARK}", json={"content": b64(b"x")})
    grant = await do("POST", f"/v1/secrets/{MARK}/grants", json={"attester": guest.attester_id})
    (incident,) = (await do("GET", "/v1/incidents")).json["incidents"]
    for answer in (assignment, token, webhook, grant):
        assert answer.status < 300, answer.content
    ids = {
        "/v1/attesters": {"id": guest.attester_id},
        "/v1/policies": {"id": MARK},
        "/v1/tokens": {"id": token.json["info"]["id"]},
        "/v1/assignments": {"id": assignment.json["id"]},
        "/v1/webhooks": {"id": webhook.json["webhook"]["id"]},
        "/v1/secrets": {
            "name": MARK,
            "id": grant.json["id"],
        },
        "/v1/incidents": {"id": incident["id"]},
        "/v1/enrollments": {"id": "enr-none"},  # tests/e2e/test_http_enrollments.py has one that waits
        "/v1/trust-anchors": {"name": MARK},  # tests/e2e/test_http_anchors.py
        "/v1/log": {"level": "0", "number": "000"},  # tests/e2e/test_http_log.py has one that is there
        "/v1/inventory": {"uuid": "4c4c4544-0042-3510-8052-b4c04f4b0a0a"},
    }
    ids |= {
        "/dashboard/attesters": ids["/v1/attesters"] | {"sequence": "1"}, "/dashboard/policies": ids["/v1/policies"],
        "/dashboard/incidents": ids["/v1/incidents"], "/dashboard/enrollments": ids["/v1/enrollments"],
    }  # fmt: skip
    marks = {
        MARK,
        guest.attester_id,
        ids["/v1/tokens"]["id"],
        ids["/v1/webhooks"]["id"],
        "host-0a",
        "4c4c4544-0042-3510-8052-b4c04f4b0a0a",
    }
    ids["/v1/log"] = {"level": "0", "number": "000.p/1"} | ids["/v1/attesters"]
    return Estate(ids, marks)


PROOFS = {"/v1/log/proof/inclusion", "/v1/log/proof/consistency"}
"""What is to be proven is in the query: tests/e2e/test_http_log.py asks with another tenant's token."""


def filled(path: str, estate: Estate) -> str:
    values = estate.ids.get("/".join(path.split("/")[:3]), {})
    query = "?attester={id}" if path == "/v1/log/proof/inclusion" else ""
    query = "?from=0" if path == "/v1/log/proof/consistency" else query
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], path + query)


def shown(content: bytes, estate: Estate, path: str) -> set[str]:
    """Marks that an answer shows, but for those of the question itself."""
    text = content.decode("utf-8", "replace")
    return {mark for mark in estate.marks if mark in text and mark not in path}


def everything(verifier) -> dict[str, list[tuple]]:
    """All rows of all tables but those that any caller moves."""
    with sqlite3.connect(
        f"file:{verifier.service.settings.state_dir / 'verifier.db'}?mode=ro", uri=True
    ) as connection:
        names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        return {
            name: sorted(map(repr, connection.execute(f'select * from "{name}"')))
            for name in names
            if not name.startswith("sqlite_")
            and name not in {"token", "event_head", "delivery", "audit", "event", "probe"}
        }


async def test_another_tenant_reads_nothing_by_any_route(verifier):
    estate = await furnish(verifier)
    theirs = await verifier.token(Scope.ADMIN, tenant="globex")
    seen = 0
    for route in ROUTES:
        if isinstance(route.access, Access) or route.method != "GET" or route.path in WITHOUT_END | PROOFS:
            continue
        path = filled(route.path, estate)
        own = await verifier.get(path)
        seen += bool(shown(own.content, estate, path))
        answer = await verifier.call("GET", path, token=theirs)
        assert shown(answer.content, estate, path) == set(), route.path
        assert answer.status in {200, 403, 404}, (route.path, answer.content)
        if "{" in route.path:
            assert answer.status in {403, 404}, route.path
    assert seen > 15, "the routes do show these things to their owner"


async def scraped(verifier, tenant: str) -> dict[str, float]:
    answer = await verifier.call(
        "GET", "/metrics", token=await verifier.token(Scope.DASHBOARD, tenant=tenant)
    )
    assert answer.status == 200, answer.content
    lines = (line.rpartition(" ") for line in answer.content.decode().splitlines() if line[0] != "#")
    return {name: float(value) for name, _, value in lines}


async def test_metrics_are_of_the_caller_s_machines_and_processes_are_for_the_default_tenant(verifier):
    for seed, tenant in ((1, "default"), (2, "default"), (3, "globex")):
        guest = Guest.booted(verifier, seed)
        await guest.enroll(await verifier.token(Scope.JOIN, tenant=tenant))
        assert (await guest.attest()).status == 200
    own, theirs = await scraped(verifier, "default"), await scraped(verifier, "globex")
    for found, tier, attesters in ((own, "affirming", 2), (theirs, "none", 1)):  # globex has no policy
        assert found[f'vtpm_attest_attesters{{status="{tier}"}}'] == attesters
        assert (
            sum(value for name, value in found.items() if name.startswith("vtpm_attest_attesters{"))
            == attesters
        )
    assert {name.partition("{")[0] for name in theirs} == {
        "vtpm_attest_attesters",
        "vtpm_attest_expiry_alarms",
        "vtpm_attest_expiry_seconds",
        "vtpm_attest_open_incidents",
        "vtpm_attest_pending_enrollments",
        "vtpm_attest_store_up",
    }
    assert 'vtpm_attest_verdicts_total{status="affirming"}' in own


async def test_what_a_service_does_by_itself_it_does_for_every_tenant(verifier):
    """Plot, ends of trust anchors, EK certificates that hold no more; what fails for one tenant is done for the others."""
    services, clock = verifier.service.services, verifier.clock
    for seed, tenant in ((1, "acme"), (2, "globex")):
        await Guest.booted(verifier, seed).enroll(await verifier.token(Scope.JOIN, tenant=tenant))
        ending = pki.Ca.root(f"Lab of {tenant}", not_after=pki.time(clock.now() + timedelta(days=5)))
        answer = await verifier.call(
            "POST",
            "/v1/trust-anchors?set=lab",
            token=await verifier.token(Scope.OPERATOR, tenant=tenant),
            data=ending.der,
            headers={"Content-Type": "application/octet-stream"},
        )
        assert answer.status == 200, answer.content
    assert await services.fleet.tenants() == ("acme", "default", "globex")
    take = services.samples.take

    async def damaged(tenant):
        if tenant == "acme":
            raise StoredDataDamaged("of acme")
        await take(tenant)

    services.samples.take = damaged
    tasks = background.start(services, lambda: None)
    try:
        for tenant in ("acme", "globex"):
            told = await eventually(lambda tenant=tenant: expiry_near(verifier, tenant))
            assert told == [f"CN=Lab of {tenant}"]
        await eventually(lambda: services.samples.since("globex", timedelta(hours=1), 10))
        assert not await services.samples.since("acme", timedelta(hours=1), 10)
    finally:
        for task in tasks:
            task.cancel()


async def expiry_near(verifier, tenant: str) -> list[str]:
    answer = await verifier.call(
        "GET", "/v1/audit", token=await verifier.token(Scope.OPERATOR, tenant=tenant)
    )
    return [one["detail"]["certificate"] for one in answer.json["entries"] if one["action"] == "expiry.near"]


async def test_another_tenant_changes_nothing_by_any_route(verifier):
    estate = await furnish(verifier)
    theirs = await verifier.token(Scope.ADMIN, tenant="globex")
    bodies = {
        "/v1/attesters/{id}/policy": {"policy": "secure-boot"}, "/v1/attesters/{id}/labels": {"labels": {"x": "y"}},
        "/v1/incidents/{id}/resolve": {"keep": "4c4c4544-0042-3510-8052-b4c04f4b0a0a", "reason": "mine"},
        "/v1/enrollments/{id}/approve": {}, "/v1/enrollments/{id}/refuse": {"reason": "no"},
        "/v1/webhooks/{id}/redeliver": {}, "/v1/secrets/{name}/grants": {"policy": MARK},
    }  # fmt: skip
    before, walked = everything(verifier), 0
    for route in ROUTES:
        if isinstance(route.access, Access) or route.method == "GET" or "{" not in route.path:
            continue
        if (route.method, route.path) == ("PUT", "/v1/secrets/{name}"):
            continue  # makes one of its own, of that name: the next test
        path = filled(route.path, estate)
        options = {"json": bodies[route.path]} if route.path in bodies else {}
        if route.request_media_type == "application/yaml" and route.path.endswith("dry-run"):
            options = {
                "data": POLICY.replace("secure-boot", MARK),
                "headers": {"Content-Type": "application/yaml"},
            }
        answer = await verifier.call(route.method, path, token=theirs, **options)
        assert answer.status == 404 or shown(answer.content, estate, path) == set(), (
            route.path,
            answer.content,
        )
        assert answer.status in {200, 400, 404}, (route.path, answer.status, answer.content)
        if route.path in bodies:
            assert answer.status == 404, (route.path, answer.content)
        walked += 1
    assert walked > 15
    assert everything(verifier) == before


async def test_an_admin_makes_lists_and_revokes_tokens_of_its_own_tenant_alone(verifier):
    theirs = await verifier.token(Scope.ADMIN, tenant="globex")

    async def tokens(method="", path="", **options):
        return await verifier.call(method, f"/v1/tokens{path}", token=theirs, **options)

    mine = (await verifier.post("/v1/tokens", {"scopes": ["dashboard"]}, scope=Scope.ADMIN)).json
    for field in ("tenant", "tenant_id"):
        refused = await tokens("POST", json={"scopes": ["admin"], field: "default"})
        assert (refused.status, refused.code) == (400, "malformed-request")
    assert (await tokens("POST", "?tenant=default", json={"scopes": ["admin"]})).status == 400
    made = (await tokens("POST", json={"scopes": ["join"]})).json
    assert {one["id"] for one in (await tokens("GET")).json["tokens"]} == {
        made["info"]["id"],
        *(
            one.id
            for one in await verifier.service.services.tokens.list("globex")
            if one.scopes == {Scope.ADMIN}
        ),
    }
    assert made["info"]["id"] not in (await verifier.get("/v1/tokens")).content.decode()
    assert (await tokens("DELETE", f"/{mine['info']['id']}")).status == 404
    assert (await verifier.call("GET", "/v1/status", token=mine["token"])).status == 200

    await Guest.booted(verifier).enroll(made["token"])
    assert len((await verifier.call("GET", "/v1/attesters", token=theirs)).json["attesters"]) == 1
    assert (await verifier.get("/v1/attesters")).json["attesters"] == [], "the machine is the tenant's"
    assert (await tokens("DELETE", f"/{made['info']['id']}")).status == 204


async def test_a_name_is_free_in_every_tenant(verifier):
    await furnish(verifier)
    theirs = await verifier.token(Scope.ADMIN, tenant="globex")
    made = await verifier.call("PUT", f"/v1/secrets/{MARK}", token=theirs, json={"content": b64(b"theirs")})
    assert made.json["revision"] == 1
    assert (await verifier.get(f"/v1/secrets/{MARK}")).json["grants"], "that of the other is as it was"


async def test_pages_of_another_tenant_show_nothing(verifier):
    estate = await furnish(verifier)
    mine, _ = await session(verifier, Scope.ADMIN)
    other, _ = await session(verifier, Scope.ADMIN, tenant="globex")
    seen = 0
    for page in PAGES:
        if page.scopes is None or page.method != "GET" or page.path in WITHOUT_END:
            continue
        path = filled(page.path, estate)
        own = await look(verifier, path, mine)
        seen += bool(shown(own.content, estate, path))
        theirs = await look(verifier, path, other)
        assert shown(theirs.content, estate, path) == set(), page.path
        assert theirs.status in {200, 403, 404}, page.path
    assert seen > 5
