"""A real Prometheus reads a real verifier over HTTPS, evaluates the shipped rules, and answers the dashboard's queries."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager

import aiohttp
import yaml

from tests.eventually import eventually
from tests.harness import boot_log
from tests.monitoring import ALERTS, CONFIG, dashboard_expressions, tool, variables
from verifier.ports import Scope

SILENT = {"Inventories: age", "Judged again: share of the fleet"}
"""Panels with nothing to show here: there is no inventory, and no policy has changed."""
LATER = {"Replicas: changes told", "Kept long enough: dropped", "History reaches back"}
"""Panels that show something once replicas have met on PostgreSQL, or something was dropped."""


@asynccontextmanager
async def prometheus(verifier, directory):
    """Prometheus with the shipped configuration, but for the address, the pace and where token and CA lie."""
    program = tool("prometheus")
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(ALERTS)]
    (scrape,) = config["scrape_configs"]
    (directory / "token").write_text(await verifier.token(Scope.DASHBOARD))
    scrape["authorization"]["credentials_file"] = str(directory / "token")
    scrape["tls_config"]["ca_file"] = str(verifier.service.tls.ca)
    scrape["static_configs"] = [{"targets": [verifier.secure_url.removeprefix("https://")]}]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=DEVNULL,
        stderr=PIPE,
        limit=2**20,
    )
    said = asyncio.create_task(process.stderr.read())
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session
    finally:
        process.terminate()
        await process.wait()
        assert b"panic" not in await said


async def ask(session, path, **query):
    try:
        async with session.get(f"/api/v1/{path}", params=query) as reply:
            answer = json.loads(await reply.read()) if reply.content_type == "application/json" else {}
    except aiohttp.ClientConnectionError:  # not up yet
        return None
    if "status" not in answer:
        return None
    assert answer["status"] == "success", (query, answer)
    return answer["data"]


async def health(session) -> tuple[str, str]:
    data = await ask(session, "targets")
    active = data["activeTargets"] if data else []
    return (active[0]["health"], active[0]["lastError"]) if active else ("unknown", "")


async def firing(session) -> set[str]:
    data = await ask(session, "alerts")
    return {one["labels"]["alertname"] for one in data["alerts"] if one["state"] == "firing"}


async def test_it_is_scraped_its_alerts_ring_and_its_panels_have_data(verifier, tmp_path):
    good, bad = await verifier.guest(1), await verifier.guest(2, log=boot_log(secure=False))
    async with prometheus(verifier, tmp_path) as session:

        async def up():
            await good.attest()
            return (await health(session))[0] == "up"

        await eventually(up)
        assert await firing(session) == set()
        await bad.attest()

        async def rings():
            for guest in (good, bad):
                await guest.attest()
            await verifier.call("GET", "/nowhere")
            return "VtpmAttestContraindicated" in await firing(session)

        await eventually(rings)
        assert await firing(session) == {"VtpmAttestContraindicated"}
        for title, expression in dashboard_expressions():
            if title in SILENT:
                assert not (await ask(session, "query", query=expression))["result"]
                continue
            if title in LATER:
                await ask(session, "query", query=expression)
                continue

            async def shows(expression=expression):
                await rings()
                return (await ask(session, "query", query=expression))["result"]

            await eventually(shows)
        for selector in variables():
            assert (await ask(session, "query", query=selector))["result"]
        data = await ask(session, "query", query='max(vtpm_attest_attesters{status="affirming"})')
        assert data["result"][0]["value"][1] == "1"


async def test_a_token_that_was_revoked_ends_the_scrapes(verifier, tmp_path):
    async with prometheus(verifier, tmp_path) as session:
        await eventually(lambda: is_up(session))
        for token in (await verifier.get("/v1/tokens")).json["tokens"]:
            if token["scopes"] == ["dashboard"]:
                await verifier.call("DELETE", f"/v1/tokens/{token['id']}", scope=Scope.ADMIN)
        await eventually(lambda: is_refused(session))


async def is_up(session):
    return (await health(session))[0] == "up"


async def is_refused(session):
    state, error = await health(session)
    return state == "down" and "401" in error
