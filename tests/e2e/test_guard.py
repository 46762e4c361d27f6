"""The guard beside a proxy: asked as Envoy's ext_authz over HTTP asks, and the example for Envoy held against what it answers.

No Envoy is here to run. Its documentation (HTTP service of ext_authz): the check has the request's own method and path and no
body; 200 lets in, with the response's headers that are allowed; any other status goes to the client with headers and body.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml
from aiohttp import ClientSession, UnixConnector, web

from tests.client_certificates import ISSUER, ClientCa, uri_of
from tests.conftest import ROOT
from tests.e2e.test_attested_only import AUDIENCE, ear_of, escaped
from tests.e2e.test_client import asking
from verifier.client.callers import ForwardedCertificate, Naming, PresentedEar, Proxies
from verifier.client.gate import Gate
from verifier.client.guard import PROBLEM_HEADER, guard_app, problem_header
from verifier.client.requirement import Denied, Refusal, Requirement

XDS_PROTOS = "xds-protos==1.85.0"
ENVOY = ROOT / "docs" / "examples" / "envoy" / "envoy.yaml"


@pytest.fixture
async def guard(verifier, tmp_path):
    """A guard on a Unix socket; a function that asks it as a proxy would."""
    denied, path = [], str(tmp_path / "guard.sock")
    async with asking(verifier) as client:
        proxies = Proxies(["unix"])
        sources = [PresentedEar(client, AUDIENCE), ForwardedCertificate(proxies, Naming(issuer=ISSUER))]
        runner = web.AppRunner(
            guard_app(Gate(client, Requirement(), sources), denied.append), access_log=None
        )
        await runner.setup()
        await web.UnixSite(runner, path).start()
        async with ClientSession(connector=UnixConnector(path)) as session:

            async def ask(method="GET", target="/", **headers):
                headers = {name.replace("_", "-"): value for name, value in headers.items()}
                async with session.request(method, f"http://guard{target}", headers=headers) as reply:
                    return reply.status, reply.headers, await reply.read()

            ask.denied = denied
            yield ask
        await runner.cleanup()


async def test_every_method_and_path_is_about_the_caller(guard, verifier, tmp_path):
    guest = await verifier.guest()
    await guest.attest()
    token = await ear_of(verifier, guest)
    for method, target in (("GET", "/"), ("POST", "/a/b?c=d"), ("DELETE", "/%2e%2e/x"), ("OPTIONS", "/")):
        status, headers, _ = await guard(method, target, Attestation_Result=token)
        assert (status, headers["X-Attester-Id"], headers["X-Attestation-Tier"]) == (
            200,
            guest.attester_id,
            "affirming",
        )
        status, headers, body = await guard(method, target)
        assert (status, json.loads(body)["code"]) == (401, "attestation-required")
        assert json.loads(headers[PROBLEM_HEADER]) == json.loads(body)
        assert "X-Attester-Id" not in headers
    certificate = escaped(ClientCa(tmp_path / "clients").issue("guest", uri_of(guest.attester_id)))
    status, headers, _ = await guard(X_Forwarded_Client_Cert=f'Hash=00;Cert="{certificate}"')
    assert (status, headers["X-Attester-Id"]) == (200, guest.attester_id)
    assert {one.refusal for one in guard.denied} == {Refusal.REQUIRED}


def test_a_problem_fits_a_header_whatever_is_in_it():
    long = Denied(refusal=Refusal.TIER, detail="ü" * 3000 + "\r\nX: y", remedy="", reasons=("a",) * 500)
    short = Denied(refusal=Refusal.TIER, detail="ü\r\nSet-Cookie: x", remedy="")
    for denied in (long, short):
        text = problem_header(denied)
        assert len(text) <= 2048
        assert text.isascii()
        assert text.isprintable()
        assert json.loads(text)["code"] == "attestation-tier"


def filters(example):
    (listener,) = example["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (manager,) = chain["filters"]
    return manager["typed_config"]


def exact(matcher):
    return {pattern["exact"] for pattern in matcher["patterns"]}


async def test_the_example_for_envoy_passes_on_what_the_guard_reads_and_sets(guard, verifier):
    guest = await verifier.guest()
    await guest.attest()
    manager = filters(yaml.safe_load(ENVOY.read_text()))
    authorization, router = (one["typed_config"] for one in manager["http_filters"])
    assert authorization["failure_mode_allow"] is False
    assert router["@type"].endswith("router.v3.Router")
    assert manager["forward_client_cert_details"] == "SANITIZE_SET"
    _, admitted, _ = await guard(Attestation_Result=await ear_of(verifier, guest))
    _, denied, _ = await guard()
    said = {name.lower() for name in admitted if name.lower().startswith("x-att")}
    answer = authorization["http_service"]["authorization_response"]
    assert exact(answer["allowed_upstream_headers"]) == said
    assert exact(answer["allowed_client_headers"]) <= {name.lower() for name in denied} | {"retry-after"}
    assert exact(authorization["allowed_headers"]) == {"attestation-result", "x-forwarded-client-cert"}
    clusters = {one["name"] for one in yaml.safe_load(ENVOY.read_text())["static_resources"]["clusters"]}
    assert authorization["http_service"]["server_uri"]["cluster"] in clusters


@pytest.fixture(scope="session")
def envoy_types():
    """Envoy's protobuf types from the package index into `build/`; a loud skip where they cannot be had."""
    folder = ROOT / "build" / "envoy"
    if not (folder / "envoy").exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            folder,
            XDS_PROTOS,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            pytest.skip(
                f"SKIPPED FOR WANT OF {XDS_PROTOS}: the example for Envoy was not read: {done.stderr[-200:]}"
            )
    return folder


def read_by(envoy_types, file):
    environment = os.environ | {"PYTHONPATH": str(envoy_types)}
    command = [sys.executable, ROOT / "tests" / "envoy_types.py", file]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_example_for_envoy_is_of_envoy_s_own_types(envoy_types, tmp_path):
    done = read_by(envoy_types, ENVOY)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [name.rpartition(".")[2] for name in found["extensions"]] == [
        "HttpConnectionManager",
        "ExtAuthz",
        "Router",
        "DownstreamTlsContext",
    ]
    assert found["deprecated"] == []
    wrong = tmp_path / "envoy.yaml"
    wrong.write_text(ENVOY.read_text().replace("failure_mode_allow:", "failure_mode_alow:"))
    assert "failure_mode_alow" in read_by(envoy_types, wrong).stderr
