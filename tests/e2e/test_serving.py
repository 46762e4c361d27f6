"""`attest-verifier serve` as processes: several workers, their replacement, and what a service manager does with them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from subprocess import PIPE

import aiohttp
import pytest

from tests.e2e.test_serve_command import BIN, START_SECONDS, configuration

LONG = 60.0


class Served:
    """The processes and what they said."""

    def __init__(self, process, lines, state):
        self.process, self.lines, self.state = process, lines, state

    @property
    def url(self) -> str:
        return self.lines[0].split()[-1]

    def workers(self) -> set[int]:
        """Processes of `serve` below the parent; the heavy work's own processes are theirs, not its."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in path.read_text().split()}

    def session(self) -> aiohttp.ClientSession:
        pinned = ssl.create_default_context(cafile=self.state / "tls" / "ca.pem")
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pinned, force_close=True))


@contextlib.asynccontextmanager
async def served(directory: Path, *arguments: str, config: Path | None = None, **options):
    config = config or configuration(directory)
    process = await asyncio.create_subprocess_exec(
        str(BIN), "serve", "--config", str(config), *arguments,
        stdout=subprocess.PIPE, stderr=(directory / "stderr").open("ab"), **options,
    )  # fmt: skip
    try:
        lines = [
            (await asyncio.wait_for(process.stdout.readline(), START_SECONDS * 3)).decode() for _ in range(2)
        ]
        assert "listening on" in lines[0], (lines, (directory / "stderr").read_text())
        yield Served(process, lines, directory / "state")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), LONG)
            except TimeoutError:
                process.kill()


class Calls:
    """A client that asks again and again, each time over a new connection, and keeps what failed."""

    def __init__(self, url, session):
        self.url, self.session = url, session
        self.answered, self.failed = 0, []

    async def forever(self):
        while True:
            try:
                async with self.session.get(f"{self.url}/healthz") as reply:
                    assert reply.status == 200
                self.answered += 1
            except (aiohttp.ClientError, AssertionError) as error:
                self.failed.append(repr(error))


@contextlib.asynccontextmanager
async def calling(service):
    async with service.session() as session:
        calls = Calls(service.url, session)
        task = asyncio.create_task(calls.forever())
        try:
            yield calls
        finally:
            task.cancel()


async def until(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.05)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_two_workers_share_the_address_and_one_that_is_killed_is_replaced(tmp_path):
    async with served(tmp_path, "--workers", "2") as service:
        assert "with 2 workers" in service.lines[0]
        before = service.workers()
        assert len(before) == 2
        victim = min(before)
        async with calling(service) as calls:
            await until(lambda: calls.answered > 5)
            os.kill(victim, signal.SIGKILL)
            await until(lambda: gone(victim) and len(service.workers()) == 2)
            known = calls.answered
            await until(lambda: calls.answered > known + 20)
        assert before - {victim} < service.workers()
        # What the killed worker held was cut; nothing else was.
        assert len(calls.failed) <= 2, calls.failed


async def test_new_settings_are_taken_up_without_a_refused_connection(tmp_path):
    config = configuration(tmp_path)
    async with served(tmp_path, "--workers", "2", config=config) as service:
        before = service.workers()
        config.write_text("public_url = 'https://another.example'\n" + config.read_text())
        async with calling(service) as calls:
            service.process.send_signal(signal.SIGHUP)
            await until(lambda: all(map(gone, before)))
            known = calls.answered
            await until(lambda: calls.answered > known + 5)
            async with calls.session.get(f"{service.url}/.well-known/openid-configuration") as reply:
                assert (await reply.json())["issuer"] == "https://another.example"
        assert calls.failed == []
        assert len(service.workers()) == 2


async def test_settings_that_cannot_be_used_leave_the_running_workers_alone(tmp_path):
    config = configuration(tmp_path)
    async with served(tmp_path, "--workers", "2", config=config) as service:
        before = service.workers()
        config.write_text("no_such_setting = 1\n" + config.read_text())
        service.process.send_signal(signal.SIGHUP)
        await until(lambda: "workers.reload-failed" in (tmp_path / "stderr").read_text())
        assert "no_such_setting" in (tmp_path / "stderr").read_text()
        assert service.workers() == before


async def test_an_anchor_that_is_half_there_is_named_when_workers_are_reloaded(tmp_path):
    config = configuration(tmp_path)
    anchor = min((tmp_path / "anchors").glob("*"))
    async with served(tmp_path, "--workers", "2", config=config) as service:
        before = service.workers()
        anchor.write_bytes(anchor.read_bytes()[:100])
        service.process.send_signal(signal.SIGHUP)
        await until(lambda: all(map(gone, before)))
        assert anchor.name in (tmp_path / "stderr").read_text()


async def test_workers_do_not_outlive_a_parent_that_was_killed(tmp_path):
    async with served(tmp_path, "--workers", "2") as service:
        workers = service.workers()
        service.process.kill()
        await service.process.wait()
        await until(lambda: all(map(gone, workers)))


async def test_a_worker_that_cannot_start_ends_the_service_with_its_reason(tmp_path):
    config = configuration(tmp_path)
    (tmp_path / "policies" / "bad.yaml").write_text("schema: vtpm-attest/policy/1\n")
    done = await asyncio.to_thread(
        subprocess.run,
        [str(BIN), "serve", "--workers", "2", "--config", str(config)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 69
    assert "bad.yaml" in done.stderr


async def test_a_single_process_takes_up_new_settings_in_its_place(tmp_path):
    config = configuration(tmp_path)
    async with served(tmp_path, config=config) as service:
        config.write_text("public_url = 'https://another.example'\n" + config.read_text())
        async with calling(service) as calls:
            await until(lambda: calls.answered > 5)
            service.process.send_signal(signal.SIGHUP)
            again = (await asyncio.wait_for(service.process.stdout.readline(), LONG)).decode()
            assert again.split()[-1] == service.url
            async with calls.session.get(f"{service.url}/.well-known/openid-configuration") as reply:
                assert (await reply.json())["issuer"] == "https://another.example"
        assert calls.failed == []


def test_a_stop_as_soon_as_it_listens_is_a_stop_in_order(tmp_path):
    call = [str(BIN), "serve", "--config", str(configuration(tmp_path))]
    with (tmp_path / "stderr").open("ab") as log, subprocess.Popen(call, stdout=PIPE, stderr=log) as process:
        assert b"listening on" in process.stdout.readline()
        process.terminate()
        assert process.wait(LONG) == 0, (tmp_path / "stderr").read_text()


async def test_one_reload_after_the_other_ends_no_process(tmp_path):
    """The second while the first is under way: of a process that has not yet begun to hear signals, too."""
    async with served(tmp_path) as service:
        begun = 1
        while begun < 3:
            service.process.send_signal(signal.SIGHUP)
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(service.process.stdout.readline(), 0.05)
                assert line, f"ended by {await service.process.wait()}"
                begun += b"listening on" in line
        service.process.send_signal(signal.SIGTERM)
        # Either by the one that serves, or between two of them.
        assert await asyncio.wait_for(service.process.wait(), LONG) in {0, -signal.SIGTERM}


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_service_manager_opens_the_socket_and_hears_how_it_stands(tmp_path, workers):
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(str(tmp_path / "notify"))
    notices.settimeout(0)
    listener = socket.create_server(("127.0.0.1", 0))
    os.dup2(listener.fileno(), 203, inheritable=True)
    call = f'exec 3<&203 203<&-; LISTEN_PID=$$ LISTEN_FDS=1 WATCHDOG_USEC=200000 exec "{BIN}" "$@"'
    config = configuration(tmp_path)
    process = await asyncio.create_subprocess_exec(
        "/bin/bash", "-c", call, "sh", "serve", "--config", str(config), "--workers", workers,
        stdout=subprocess.PIPE, stderr=(tmp_path / "stderr").open("wb"), pass_fds=(203,),
        env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
    )  # fmt: skip
    os.close(203)
    loop = asyncio.get_running_loop()
    heard = ""

    async def hear(word):
        nonlocal heard
        async with asyncio.timeout(LONG):
            while word not in heard:
                heard += (await loop.sock_recv(notices, 4096)).decode() + "\n"

    try:
        await hear("READY=1")
        await hear("WATCHDOG=1")
        service = Served(process, [(await process.stdout.readline()).decode()], tmp_path / "state")
        assert service.url == f"https://127.0.0.1:{listener.getsockname()[1]}"
        async with service.session() as session, session.get(f"{service.url}/healthz") as reply:
            assert reply.status == 200
        process.send_signal(signal.SIGTERM)
        await hear("STOPPING=1")
        assert await asyncio.wait_for(process.wait(), LONG) == 0
    finally:
        listener.close()
        notices.close()
        if process.returncode is None:
            process.kill()


async def test_whichever_worker_is_scraped_tells_of_all(tmp_path):
    config = configuration(tmp_path)
    config.write_text(config.read_text() + "\n[metrics]\ncache = '0s'\n")
    async with served(tmp_path, "--workers", "2", config=config) as service:
        made = await asyncio.create_subprocess_exec(
            str(BIN),
            "tokens",
            "create",
            "--config",
            str(config),
            "--scope",
            "dashboard",
            "--json",
            stdout=subprocess.PIPE,
        )
        token = json.loads((await made.communicate())[0])["token"]
        told = re.compile(
            r'^vtpm_attest_responses_total\{worker="(\d)",operation="get_healthz",.*\} (\d+)', re.MULTILINE
        )
        last = {}
        async with service.session() as session:

            async def scrape() -> dict[str, int]:
                headers = {"Authorization": f"Bearer {token}"}
                async with session.get(f"{service.url}/metrics", headers=headers) as reply:
                    assert reply.status == 200, await reply.text()
                    return {worker: int(count) for worker, count in told.findall(await reply.text())}

            for _ in range(40):
                async with session.get(f"{service.url}/healthz") as reply:
                    assert reply.status == 200
                found = await scrape()
                assert all(found[worker] >= count for worker, count in last.items())
                last = found
            end = time.monotonic() + LONG
            while sum(last.values()) < 40:
                assert time.monotonic() < end, last
                await asyncio.sleep(0.5)
                last = await scrape()
        assert sum(last.values()) == 40
        assert set(last) == {"0", "1"}
