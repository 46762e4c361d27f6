"""A worker that ends while its program cannot be started, as in the middle of an upgrade, is replaced later."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from tests.eventually import eventually
from verifier.serving import supervisor
from verifier.serving.manager import Manager
from verifier.serving.supervisor import Supervisor

WORKER = f"""#!{sys.executable}
import os, signal, socket
socket.socket(fileno=int(os.environ["ATTEST_WORKER_PARENT"])).send(b"ready")
signal.pause()
"""


async def usable() -> bool:
    return True


async def test_a_program_that_is_gone_for_a_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 0.01)
    program, away = tmp_path / "worker", tmp_path / "away"
    program.write_text(WORKER)
    program.chmod(0o755)
    parent = Supervisor(
        command=[str(program)],
        slots=[()],
        environment=dict(os.environ),
        manager=Manager(None, None),
        grace=5,
        usable=usable,
    )
    ready = asyncio.Event()
    running = asyncio.create_task(parent.run(ready.set))
    await asyncio.wait_for(ready.wait(), 60)
    first = parent._children[0].process.pid
    program.rename(away)
    os.kill(first, signal.SIGKILL)
    await asyncio.sleep(0.3)
    assert not running.done()
    away.rename(program)
    await eventually(lambda: parent._children[0].process.pid != first)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 60)
