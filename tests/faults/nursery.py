"""`attest-verifier` processes that start at once: forked from one that has imported everything. `python -m tests.faults.nursery`.

A line of JSON on stdin is an argument vector and where stdout and stderr go; a line on stdout is the process id, or an id and how
it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_SECONDS = 120.0


def main() -> None:
    """Fork one for every line, until stdin ends."""
    import uvloop  # noqa: F401

    import verifier.main
    import verifier.web.app  # noqa: F401
    from verifier.cli.attest_verifier import main as program

    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for number, path in enumerate((asked["stdout"], asked["stderr"]), 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
            sys.argv = ["attest-verifier", *asked["arguments"]]
            try:
                program()
            except SystemExit as left:
                sys.stderr.flush()
                os._exit(left.code if isinstance(left.code, int) else int(left.code is not None))
            os._exit(0)
        say(pid)
        threading.Thread(target=lambda pid=pid: say(pid, os.waitpid(pid, 0)[1])).start()


def say(pid: int, status: int | None = None) -> None:
    """A line to who asked."""
    code = None if status is None else os.waitstatus_to_exitcode(status)
    os.write(1, json.dumps([pid, code]).encode() + b"\n")


@dataclass
class Child:
    """One process of the nursery."""

    pid: int
    out: Path
    err: Path
    ended: asyncio.Future[int]

    def kill(self, number: int = signal.SIGKILL) -> None:
        if not self.ended.done():
            os.kill(self.pid, number)

    async def listening(self) -> bool:
        """Until it serves, or has ended before."""
        async with asyncio.timeout(START_SECONDS):
            while b"listening on" not in self.out.read_bytes():
                if self.ended.done():
                    return False
                await asyncio.sleep(0.02)
        return True


@dataclass
class Nursery:
    """Where they come from."""

    directory: Path
    process: Process
    children: dict[int, Child] = field(default_factory=dict)
    made: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    count: int = 0

    async def start(self, *arguments: str) -> Child:
        """Run `attest-verifier` with these arguments."""
        assert self.process.stdin is not None
        self.count += 1
        out, err = (self.directory / f"{self.count}.{name}" for name in ("out", "err"))
        out.touch()
        asked = {"arguments": arguments, "stdout": str(out), "stderr": str(err)}
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        pid = await asyncio.wait_for(self.made.get(), START_SECONDS)
        child = self.children[pid]
        child.out, child.err = out, err
        return child

    async def listen(self) -> None:
        """Hear of their beginnings and ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            pid, code = json.loads(line)
            if code is None:
                self.children[pid] = Child(pid, Path(), Path(), asyncio.get_running_loop().create_future())
                self.made.put_nowait(pid)
            else:
                self.children[pid].ended.set_result(code)


@asynccontextmanager
async def nursery(directory: Path, environment: Mapping[str, str]) -> AsyncIterator[Nursery]:
    """One, until the end; its children end with it."""
    directory.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.nursery",
        stdin=PIPE,
        stdout=PIPE,
        env={**os.environ, **environment},
    )
    made = Nursery(directory, process)
    listening = asyncio.create_task(made.listen())
    try:
        yield made
    finally:
        for child in made.children.values():
            child.kill()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await asyncio.gather(listening, return_exceptions=True)


def fault_of(child: Child) -> dict[str, Any]:
    """For the message of a failed test."""
    return {
        "code": child.ended.result() if child.ended.done() else None,
        "stderr": child.err.read_text()[-3000:],
    }


if __name__ == "__main__":
    main()
