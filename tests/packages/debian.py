"""A Debian in a folder: programs run in it, or it is booted with its own systemd in namespaces of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).parent
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
_CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_START_SECONDS = 20
DEB = "/var/cache/vtpm-attest-agent.deb"
"""Where the package lies in the Debian."""


class Debian:
    """With what the package depends on and what the tests need."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return _run(["chroot", str(self.root), *command], check=check)

    def run_with_proc(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As `run`, for what looks at /proc."""
        mounted = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount -t proc proc "$0" && exec "$@"',
            str(self.root / "proc"),
        ]
        return _run([*mounted, "chroot", str(self.root), *command], check=check)

    def write(self, path: str, text: str) -> Path:
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)
        return where

    def files(self) -> set[str]:
        """Everything but what dpkg and apt note down about any package."""
        skipped = ("var/lib/dpkg", "var/log", "var/cache", "tmp", "guest")
        found = {str(path.relative_to(self.root)) for path in self.root.rglob("*")}
        return {name for name in found if not name.startswith(skipped)}

    @contextmanager
    def booted(self) -> Iterator[System]:
        """Its systemd, running; killed with all it started at the end."""
        group = _cgroup()
        command = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]
        process = subprocess.Popen(
            [*command, str(HERE / "boot.sh"), str(self.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),  # noqa: PLW1509
        )
        try:
            system = System(_child(process.pid))
            system.wait_for(system.answers)
            yield system
        finally:
            with suppress(LookupError, ProcessLookupError):
                os.kill(
                    _child(process.pid), signal.SIGKILL
                )  # process 1 of its namespace: all others go with it
            process.kill()
            process.wait()
            _remove(group)


class System:
    """A Debian that was booted."""

    def __init__(self, first: int) -> None:
        self._first = first

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        enter = [
            "nsenter",
            "--target",
            str(self._first),
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--cgroup",
            "--root",
        ]
        return _run([*enter, "--wd=/", *command], check=check)

    def answers(self) -> bool:
        """Whether process 1 is systemd by now, and its bus is there."""
        return self.run("systemctl", "show", "--property=Version", check=False).returncode == 0

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()

    def state(self, unit: str) -> str:
        return self.show(unit, "ActiveState")

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "--unit", unit).stdout

    def wait_for(self, condition, seconds: float = _START_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.1)

    def wait_until(self, unit: str, *states: str) -> str:
        try:
            self.wait_for(lambda: self.state(unit) in states)
        except AssertionError as error:
            ours = ["attest-agent.service", "attested.*", unit]
            status = self.run("systemctl", "status", "--no-pager", "--full", "--lines=20", *ours, check=False)
            jobs = self.run("systemctl", "list-jobs", "--no-pager", check=False)
            raise AssertionError(f"{unit} is {self.state(unit)}\n{status.stdout}{jobs.stdout}") from error
        return self.state(unit)


def can_boot() -> bool:
    """Whether this machine lets its tests have namespaces and a control group."""
    if os.geteuid() != 0:
        return False
    try:
        _remove(_cgroup())
    except OSError:
        return False
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False, capture_output=True)
    return done.returncode == 0


def _run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_ENVIRONMENT, timeout=120)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def _cgroup() -> Path:
    """A new group of the unified hierarchy."""
    for root in _CGROUPS:
        if (root / "cgroup.controllers").exists():
            group = root / f"vtpm-attest-test-{os.getpid()}"
            group.mkdir(exist_ok=True)
            return group
    raise OSError("no unified control group hierarchy")


def _remove(group: Path) -> None:
    """The group and those below it, as soon as the last process in them has ended."""
    end = time.monotonic() + 5
    while group.exists() and time.monotonic() < end:
        below = (path for path in group.rglob("*") if path.is_dir())
        for folder in (*sorted(below, reverse=True), group):
            with suppress(OSError):
                folder.rmdir()
        time.sleep(0.05)


def _child(pid: int) -> int:
    """The process that `unshare` made."""
    end = time.monotonic() + _START_SECONDS
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while time.monotonic() < end:
        found = children.read_text().split() if children.exists() else []
        if found:
            return int(found[0])
        time.sleep(0.01)
    raise LookupError("unshare made no process")
