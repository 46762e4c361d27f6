"""`attest-verifier serve` as a process: HTTPS with its own CA, a guest over it, and an orderly end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest

from tests.harness import POLICY, FakeClock, Guest, Harness, write_anchors
from verifier.main import SHUTDOWN
from verifier.ports import Scope

BIN = Path(sys.executable).parent / "attest-verifier"
START_SECONDS = 20


def configuration(directory: Path) -> Path:
    policies = directory / "policies"
    policies.mkdir()
    (policies / "secure-boot.yaml").write_text(POLICY)
    path = directory / "verifier.toml"
    path.write_text(
        f"""
        state_dir = "{directory / "state"}"
        trust_anchors = ["{write_anchors(directory / "anchors")}"]
        policies_dir = "{policies}"
        default_policy = "secure-boot"
        [listen]
        port = 0
        [log]
        format = "json"
        """
    )
    return path


def command(config: Path, *arguments: str) -> str:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("VTPM_ATTEST")}
    call = [str(BIN), *arguments, "--config", str(config)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
async def served(tmp_path):
    """The process, its address, and the configuration."""
    config = configuration(tmp_path)
    process = await asyncio.create_subprocess_exec(
        str(BIN), "serve", "--config", str(config), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    line = (await asyncio.wait_for(process.stdout.readline(), START_SECONDS)).decode()
    pin = (await asyncio.wait_for(process.stdout.readline(), START_SECONDS)).decode()
    assert "listening on https://127.0.0.1:" in line, line
    yield SimpleNamespace(
        process=process, url=line.split()[-1], pin=pin, config=config, state=tmp_path / "state"
    )
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_a_guest_attests_over_tls_and_the_service_ends_in_order(served):
    pinned = ssl.create_default_context(cafile=served.state / "tls" / "ca.pem")
    join = (await asyncio.to_thread(command, served.config, "tokens", "create", "--scope", "join")).strip()
    admin = json.loads(
        await asyncio.to_thread(command, served.config, "tokens", "create", "--scope", "admin", "--json")
    )
    connector = aiohttp.TCPConnector(ssl=pinned)
    async with aiohttp.ClientSession(connector=connector) as session:
        verifier = Harness(None, FakeClock(), served.url, session, tokens={Scope.ADMIN: admin["token"]})
        guest = Guest.booted(verifier)
        await guest.enroll(join)
        assert (await guest.attest()).json["verdict"]["status"] == "affirming"
        assert (await verifier.get("/v1/status")).json["counts"]["affirming"] == 1
        await asyncio.to_thread(command, served.config, "keys", "rotate")
        assert len((await verifier.get("/.well-known/jwks.json")).json["keys"]) == 2
        served.process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(served.process.communicate(), 10)
    assert served.process.returncode == 0
    events = [json.loads(line)["event"] for line in log.decode().splitlines()]
    assert "attester.enrolled" in events
    assert "verdict.recorded" in events
    assert events[-1] == "service.stopping"


async def test_a_stop_ends_streams_and_waits_for_none(served):
    """Far sooner than what was begun gets to end; the client sees an end, no broken connection."""
    made = await asyncio.to_thread(command, served.config, "tokens", "create", "--scope", "dashboard")
    pinned = ssl.create_default_context(cafile=served.state / "tls" / "ca.pem")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pinned)) as session:
        headers = {"Authorization": f"Bearer {made.strip()}"}
        async with session.get(f"{served.url}/v1/events", headers=headers) as reply:
            while await reply.content.readline() != b"\r\n":
                pass
            served.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(reply.read(), SHUTDOWN / 2)
            await asyncio.wait_for(served.process.communicate(), SHUTDOWN / 2)
    assert served.process.returncode == 0


async def test_a_client_that_does_not_know_the_ca_does_not_connect(served):
    assert "SHA-256" in served.pin
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{served.url}/healthz")


def test_a_policy_that_cannot_be_used_stops_the_start(tmp_path):
    config = configuration(tmp_path)
    (tmp_path / "policies" / "bad.yaml").write_text("schema: vtpm-attest/policy/1\n")
    done = subprocess.run(
        [str(BIN), "serve", "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 69
    assert "bad.yaml" in done.stderr
    assert "Traceback" not in done.stderr
