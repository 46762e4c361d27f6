"""What an orchestrator does to the images, with a real PostgreSQL, a real balancer and a software TPM."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from tests import postgresql, swtpm
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
USER = 10001
HEALTH = ("python3", "/usr/libexec/vtpm-attest/healthcheck.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("name", ["verifier", "agent"])
def test_an_image_has_no_compiler_no_pip_and_an_ordinary_user(images, containers, name):
    look = "id -u; id -g; for tool in gcc cc c++ make pip pip3 apt-config; do command -v $tool; done; true"
    done = containers.output("--entrypoint", "sh", images[name], "-c", look)
    lines = done.stdout.split()
    assert lines[:2] == [str(USER), str(USER)]
    assert lines[2:] in ([], ["/usr/bin/apt-config"]), "Debian's own apt is in its base image"


@pytest.mark.parametrize("name", ["verifier", "agent"])
def test_help_and_version_work_with_a_read_only_root(images, containers, name):
    version = containers.output(images[name], "--version")
    assert version.returncode == 0, version.stderr
    assert "0.1" in version.stdout
    assert containers.output(images[name], "--help").returncode == 0


@pytest.mark.parametrize(
    ("name", "carries"), [("verifier", "aiohttp"), ("agent", "tpm2-pytss")], ids=["verifier", "agent"]
)
def test_an_image_says_what_it_carries(images, containers, name, carries):
    done = containers.output("--entrypoint", "cat", images[name], "/opt/vtpm-attest/sbom.cdx.json")
    components = {one["name"]: one["version"] for one in json.loads(done.stdout)["components"]}
    assert {carries, "vtpm-attest-agent"} <= set(components)
    assert "pip" not in components


class Replica:
    """One verifier container."""

    def __init__(self, containers, image, name, state, url, anchors) -> None:
        self.containers, self.name, self.port = containers, f"{name}-{uuid.uuid4().hex[:8]}", free_port()
        settings = {
            "DATABASE": url, "TRUST_ANCHORS": "/anchors", "POLICIES_DIR": "/usr/share/vtpm-attest/policies",
            "DEFAULT_POLICY": "permissive", "LISTEN_PORT": str(self.port), "PUBLIC_URL": "https://localhost",
        }  # fmt: skip
        environment = [
            part
            for key, value in settings.items()
            for part in ("--env", f"VTPM_ATTEST_VERIFIER_{key}={value}")
        ]
        database = url.split("host=")[1]
        volumes = (
            "--volume",
            f"{state}:/var/lib/vtpm-attest",
            "--volume",
            f"{anchors}:/anchors:ro",
            "--volume",
            f"{database}:{database}",
        )
        containers.start(self.name, *environment, *volumes, image)

    def healthy(self) -> bool:
        return self.containers.inside(self.name, *HEALTH).returncode == 0

    def wait(self) -> None:
        deadline = time.monotonic() + 90
        while not self.healthy():
            assert time.monotonic() < deadline, subprocess.run(
                ["podman", "logs", self.name], capture_output=True, text=True, check=False
            ).stderr[-3000:]
            time.sleep(0.5)

    def command(self, *arguments: str) -> dict:
        done = self.containers.inside(self.name, "attest-verifier", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def machine(tmp_path):
    made = swtpm.manufacture(tmp_path / "tpm", tmp_path / "ca")
    with swtpm.Swtpm(made.state) as running:
        yield running, made


@pytest.fixture
def balancer(tmp_path):
    """nginx with the configuration of the compose file, its names put right for this machine."""

    def start(*ports: int) -> int:
        listen = free_port()
        text = (ROOT / "docker/nginx/nginx.conf").read_text()
        text = text.replace("listen 8443", f"listen 127.0.0.1:{listen}").replace(
            "/tmp/nginx.pid", str(tmp_path / "nginx.pid")
        )
        for number, port in enumerate(ports, 1):
            text = text.replace(f"verifier-{number}:8443", f"127.0.0.1:{port}")
        module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
        (tmp_path / "nginx.conf").write_text(f"load_module {module};\n{text}")
        processes.append(subprocess.Popen(["nginx", "-c", tmp_path / "nginx.conf", "-g", "daemon off;"]))
        return listen

    processes: list[subprocess.Popen[bytes]] = []
    yield start
    for process in processes:
        process.terminate()
        process.wait(10)


def ask(port: int, path: str, token: str, ca: str) -> dict:
    context = ssl.create_default_context(cadata=ca)
    request = urllib.request.Request(
        f"https://localhost:{port}{path}", headers={"authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, context=context, timeout=20) as reply:
        return json.load(reply)


def test_two_replicas_behind_the_balancer_judge_an_agent_s_container_also_when_one_is_killed(
    images, containers, machine, balancer, tmp_path
):
    tpm, made = machine
    state, anchors, guest = tmp_path / "state", tmp_path / "anchors", tmp_path / "guest"
    for folder in (state, anchors, guest):
        folder.mkdir()
    for folder in (state, guest):
        os.chown(folder, USER, USER)
    (anchors / "issuer.pem").write_bytes(made.issuer_pem)
    for above in (*tmp_path.parents, tmp_path):  # a container's user walks these
        if above.owner() == "root" and above.is_relative_to("/tmp") and above != Path("/tmp"):
            above.chmod(0o755)
    with postgresql.started() as cluster:
        cluster.root.chmod(0o755)
        cluster.sql("CREATE DATABASE fleet")
        first = Replica(containers, images["verifier"], "verifier-1", state, cluster.url("fleet"), anchors)
        first.wait()
        second = Replica(containers, images["verifier"], "verifier-2", state, cluster.url("fleet"), anchors)
        second.wait()
        port = balancer(first.port, second.port)
        join = first.command("tokens", "create", "--scope", "join")["token"]
        watcher = second.command("tokens", "create", "--scope", "dashboard")["token"]
        agent = ["--volume", f"{guest}:/var/lib/vtpm-attest", images["agent"]]
        common = ["--tcti", tpm.tcti, "--json"]
        enrolled = containers.output(
            *agent, "enroll", "--server", f"https://localhost:{port}", "--token", join, *common
        )
        assert enrolled.returncode == 0, enrolled.stderr
        judged = containers.output(*agent, "attest", "--wait", "60", *common)
        verdict = json.loads(judged.stdout.splitlines()[-1])["verdict"]
        ca = (state / "tls" / "ca.pem").read_text()
        seen = [
            ask(replica.port, f"/v1/attesters/{verdict['attester_id']}/verdict", watcher, ca)
            for replica in (first, second)
        ]
        assert seen[0] == seen[1]

        containers.kill(first.name)
        again = containers.output(*agent, "attest", "--wait", "60", *common)
        following = json.loads(again.stdout.splitlines()[-1])["verdict"]
        assert following["sequence"] == verdict["sequence"] + 1
        assert following["status"] == verdict["status"]

        cluster.stop("immediate")
        assert not second.healthy(), "without its database it is not ready"
        cluster.start()
        second.wait()
        assert containers.stop(second.name) == 0
