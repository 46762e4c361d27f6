"""Images, built once; containers, stopped at the end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.images import build


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Tags of both images."""
    absent = build.missing()
    if absent:
        pytest.skip(f"IMAGES NOT BUILT: needs {', '.join(absent)} (`make images` installs what it can)")
    build.make_base()
    return {name: build.build(name) for name in ("verifier", "agent")}


class Containers:
    """Runs them as the documentation says: read-only, without capabilities or new privileges."""

    # Only what this sandbox lacks differs: cgroups, a network of their own, limits.
    HERE = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")
    AS_DOCUMENTED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    LIMITS = (
        "--network",
        "host",
        "--ulimit",
        "nofile=1024:4096",
        "--ulimit",
        "nproc=1000:1000",
        "--no-healthcheck",
    )

    def __init__(self) -> None:
        self._started: list[str] = []

    def command(self, *arguments: str) -> list[str]:
        return ["podman", *self.HERE, "run", *self.AS_DOCUMENTED, *self.LIMITS, *arguments]

    def output(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run to its end."""
        return subprocess.run(
            self.command("--rm", *arguments),
            capture_output=True,
            text=True,
            env=build.ENVIRONMENT,
            timeout=timeout,
            check=False,
        )

    def start(self, name: str, *arguments: str) -> None:
        """In the background."""
        self._started.append(name)
        build.run(*self.command("--detach", "--name", name, *arguments))

    def inside(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", *self.HERE, "exec", name, *command],
            capture_output=True,
            text=True,
            env=build.ENVIRONMENT,
            timeout=60,
            check=False,
        )

    def stop(self, name: str, *, patience: int = 20) -> int:
        """As an orchestrator does: SIGTERM, then its exit code."""
        build.run("podman", *self.HERE, "stop", "--time", str(patience), name)
        (state,) = json.loads(build.run("podman", "inspect", name))
        return int(state["State"]["ExitCode"])

    def kill(self, name: str) -> None:
        build.run("podman", *self.HERE, "kill", name)

    def remove_all(self) -> None:
        for name in self._started:
            subprocess.run(
                ["podman", *self.HERE, "rm", "--force", "--time", "0", name],
                env=build.ENVIRONMENT,
                capture_output=True,
                check=False,
            )


@pytest.fixture
def containers() -> Iterator[Containers]:
    made = Containers()
    yield made
    made.remove_all()
