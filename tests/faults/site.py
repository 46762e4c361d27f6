"""A verifier that can be broken: its processes, its database and its folder, each within reach."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness import POLICY, write_anchors
from tests.postgresql import Cluster

BIN = Path(sys.executable).parent / "attest-verifier"
START_SECONDS = 90


@dataclass
class Replica:
    """One `attest-verifier serve`, on an address that stays the same when it is started again."""

    config: Path
    port: int
    workers: int
    process: Process | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside that of the tests."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Until it answers."""
        with self.config.with_suffix(".log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                BIN, "serve", "--config", self.config, "--workers", str(self.workers),
                stdout=PIPE, stderr=log, env={**os.environ, **self.environment},
            )  # fmt: skip
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), START_SECONDS)
        assert b"listening on" in line, self.log()[-3000:]

    def kill(self) -> None:
        """No time for anything."""
        assert self.process is not None
        self.process.kill()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), START_SECONDS)

    def processes(self) -> list[int]:
        """Those that serve: the workers, or the one process."""
        assert self.process is not None
        if self.workers == 1:
            return [self.process.pid]
        return children(self.process.pid)

    def log(self) -> str:
        return self.config.with_suffix(".log").read_text()


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@dataclass
class Site:
    """Replicas of one verifier on one database."""

    directory: Path
    replicas: list[Replica]
    cluster: Cluster | None = None
    database: str = ""
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def log(self) -> str:
        """Of all replicas."""
        return "".join(replica.log() for replica in self.replicas)

    def tls(self) -> ssl.SSLContext:
        """Trusts this verifier and nobody else."""
        return ssl.create_default_context(cafile=self.state / "tls" / "ca.pem")

    async def token(self, scope: str) -> str:
        """A secret for this scope, made by the command of the operator."""
        if scope not in self.tokens:
            uses = ["--uses", "100000"] if scope == "join" else []
            done = await asyncio.create_subprocess_exec(
                BIN, "tokens", "create", "--config", self.replicas[0].config, "--scope", scope, "--json", *uses,
                stdout=PIPE,
            )  # fmt: skip
            out, _ = await done.communicate()
            self.tokens[scope] = json.loads(out)["token"]
        return self.tokens[scope]


def prepared(
    directory: Path,
    *,
    replicas: int = 1,
    workers: int = 1,
    cluster: Cluster | None = None,
    policies: Mapping[str, bytes] | None = None,
    more: str = "",
) -> Site:
    """All that one needs before it is started; see `site`."""
    database = f"faults_{os.urandom(6).hex()}" if cluster is not None else ""
    if cluster is not None:
        cluster.sql(f"CREATE DATABASE {database}")
    folder = directory / "policies"
    folder.mkdir()
    for name, content in {"secure-boot.yaml": POLICY.encode(), **(policies or {})}.items():
        (folder / name).write_bytes(content)
    made = Site(directory, [], cluster, database)
    lines = [
        f'state_dir = "{made.state}"',
        f'trust_anchors = ["{write_anchors(directory / "anchors")}"]',
        f'policies_dir = "{folder}"',
        'default_policy = "secure-boot"',
        *([] if cluster is None else [f'database = "{cluster.url(database)}"']),
        more,
        "[limits]\nattestations_per_attester = 0",  # a crowd of few that attests without a pause
        '[log]\nlevel = "warning"\nformat = "json"',
    ]
    for number in range(replicas):
        port = _free_port()
        config = directory / f"replica-{number}.toml"
        config.write_text("\n".join([*lines, f"[listen]\nport = {port}"]))
        made.replicas.append(Replica(config, port, workers))
    return made


@asynccontextmanager
async def site(
    directory: Path,
    *,
    replicas: int = 1,
    workers: int = 1,
    cluster: Cluster | None = None,
    policies: Mapping[str, bytes] | None = None,
    more: str = "",
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Site]:
    """Start one; on SQLite, or on a database of its own in `cluster`. `policies` are files beside the
    policy, `more` is TOML for the settings, `environment` is that of the services.
    """
    made = prepared(
        directory, replicas=replicas, workers=workers, cluster=cluster, policies=policies, more=more
    )
    try:
        for replica in made.replicas:
            replica.environment = environment or {}
            await replica.start()
        yield made
    finally:
        for replica in made.replicas:
            if replica.process is not None and replica.process.returncode is None:
                replica.signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(replica.process.wait(), 30)
                if replica.process.returncode is None:
                    replica.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
