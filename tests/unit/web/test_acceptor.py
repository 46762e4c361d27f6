"""Who connects and says nothing, or too little, or takes no answer: how much of that there can be, and for how long."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from aiohttp import web

from tests.eventually import eventually
from verifier.adapters import SystemClock
from verifier.keys.tls import own_tls
from verifier.serving.sockets import listen
from verifier.web import acceptor, runner
from verifier.web.acceptor import Acceptor, Door
from verifier.web.connections import Connections
from verifier.web.runner import CONNECTIONS, Runner

HEAD = b"GET /%s HTTP/1.1\r\nHost: verifier.test\r\n"
LARGE = 32 * 1024 * 1024


class Service:
    """A small application behind a door, over TLS."""

    def __init__(self, port: int, door: Door, kept: Connections, tls: ssl.SSLContext) -> None:
        self.port, self.door, self.kept = port, door, kept
        self.tls = tls
        self.go_on = asyncio.Event()
        self.stop: Callable[[], Awaitable[None]]

    async def silent(self, count: int) -> list[socket.socket]:
        """Clients that connect and say nothing."""
        clients = []
        for _ in range(count):
            client = socket.socket()
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
            clients.append(client)
        return clients

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that shakes hands."""
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, limit=2 * LARGE)

    async def ask(self, path: str) -> bytes:
        """The body of an answer."""
        reader, writer = await self.connect()
        writer.write(HEAD % path.encode() + b"Connection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def service(folder, handshakes=4, most=16, limit=64):
    files = own_tls(folder / "tls", ["127.0.0.1"], SystemClock().now())
    client = ssl.create_default_context(cafile=files.ca)
    app = web.Application()
    kept = app[CONNECTIONS] = Connections(most, limit)
    door = Door(handshakes, kept)
    ((listening,),) = listen("127.0.0.1", 0, 1)
    made = Service(listening.getsockname()[1], door, kept, client)

    async def wait(_: web.Request) -> web.Response:
        await made.go_on.wait()
        return web.Response(text="at last")

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    async def quick(_: web.Request) -> web.Response:
        return web.Response(text="here")

    app.add_routes([web.get("/wait", wait), web.get("/large", large), web.get("/quick", quick)])
    served = Runner(app, access_log=None, shutdown_timeout=1)
    await served.setup()
    made.stop = served.cleanup
    await Acceptor(served, listening, door, files.context()).start()
    try:
        yield made
    finally:
        made.go_on.set()
        await made.stop()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a test on this loop; whatever it leaves unhandled is a failure."""

    def on_the_loop(test) -> None:
        wrong = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
            await test

        with asyncio.Runner(loop_factory=request.param) as loop:
            loop.run(watched())
        assert not wrong

    return on_the_loop


def test_so_many_handshakes_at_once_and_the_kernel_holds_the_others(tmp_path, run):
    async def test() -> None:
        async with service(tmp_path) as own:
            clients = await own.silent(20)
            await eventually(lambda: own.door.waiting == 16)
            assert own.door.handshakes == 4
            assert len(own.kept) == 0
            for client in clients:
                client.close()
            await eventually(lambda: (own.door.waiting, own.door.handshakes) == (0, 0))
            assert await own.ask("quick") == b"here"

    run(test())


def test_who_has_just_connected_is_answered_though_the_service_stops(tmp_path, run):
    async def test() -> None:
        async with service(tmp_path) as own:
            (client,) = await own.silent(1)
            begun = await own.connect()
            await eventually(lambda: (own.door.handshakes, len(own.kept)) == (1, 1))
            stopping = asyncio.create_task(own.stop())
            await asyncio.sleep(0.05)
            began = await asyncio.open_connection(
                sock=client, ssl=own.tls, server_hostname="127.0.0.1", limit=LARGE
            )
            for _, writer in (begun, began):
                writer.write(HEAD % b"quick" + b"\r\n")
            for reader, writer in (begun, began):
                assert (await reader.read()).endswith(b"here")
                writer.close()
            await stopping

    run(test())


def test_who_has_long_said_nothing_holds_up_no_stop(tmp_path, run, monkeypatch):
    async def test() -> None:
        async with service(tmp_path) as own:
            (client,) = await own.silent(1)
            reader, writer = await own.connect()
            await eventually(lambda: (own.door.handshakes, len(own.kept)) == (1, 1))
            await asyncio.sleep(0.2)
            await asyncio.wait_for(own.stop(), 5)
            assert await reader.read() == b""
            assert own.door.failed["handshake-slow"] == 1
            writer.close()
            client.close()

    monkeypatch.setattr(acceptor, "_GRACE", 0.1)
    monkeypatch.setattr(acceptor, "PATIENCE", 60)
    run(test())


def test_whoever_stands_still_makes_room_for_who_waits(tmp_path, run, monkeypatch):
    async def test() -> None:
        async with service(tmp_path) as own:
            clients = await own.silent(20)
            assert await own.ask("quick") == b"here"
            assert own.door.failed["handshake-slow"] >= 16
            for client in clients:
                client.close()

    monkeypatch.setattr(acceptor, "STILL", 0.1)
    run(test())


def test_whoever_stands_still_is_left_alone_while_nobody_waits(tmp_path, run, monkeypatch):
    async def test() -> None:
        async with service(tmp_path) as own:
            clients = await own.silent(4)
            await eventually(lambda: own.door.handshakes == 4)
            await asyncio.sleep(0.6)
            assert own.door.handshakes == 4
            assert not own.door.failed
            for client in clients:
                client.close()

    monkeypatch.setattr(acceptor, "STILL", 0.0)
    run(test())


def test_a_handshake_has_an_end(tmp_path, run, monkeypatch):
    async def test() -> None:
        async with service(tmp_path) as own:
            clients = await own.silent(3)
            clients[0].send(b"\x16\x03\x01")  # as a ClientHello begins
            await eventually(lambda: own.door.failed["handshake-slow"] == 3)
            assert own.door.handshakes == 0
            for client in clients:
                client.close()

    monkeypatch.setattr(acceptor, "PATIENCE", 0.3)
    run(test())


def test_what_is_no_tls_is_counted_and_harms_nobody(tmp_path, run):
    async def test() -> None:
        async with service(tmp_path) as own:
            (client,) = await own.silent(1)
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            await eventually(lambda: own.door.failed["handshake-broken"] == 1)
            assert await own.ask("quick") == b"here"
            client.close()

    run(test())


def test_there_are_never_more_connections_than_allowed_and_none_is_refused(tmp_path, run):
    async def test() -> None:
        async with service(tmp_path, most=2, limit=6) as own:
            asked = [asyncio.create_task(own.ask("wait")) for _ in range(30)]
            await eventually(lambda: (own.door.waiting, own.door.handshakes) == (24, 0))
            assert len(own.kept) == 6
            own.go_on.set()
            assert await asyncio.gather(*asked) == [b"at last"] * 30

    run(test())


def test_at_the_limit_whoever_rests_makes_room(tmp_path, run, monkeypatch):
    async def test() -> None:
        async with service(tmp_path, most=6, limit=6) as own:
            idle = [await own.connect() for _ in range(6)]
            assert await own.ask("quick") == b"here"
            assert 1 <= own.kept.shed < 6
            for _, writer in idle:
                writer.close()

    monkeypatch.setattr("verifier.web.connections._REST", 0.1)
    run(test())


@pytest.mark.parametrize("said", [b"", HEAD % b"quick"], ids=["nothing", "half-a-head"])
def test_a_head_has_to_come(tmp_path, run, monkeypatch, said):
    async def test() -> None:
        async with service(tmp_path) as own:
            reader, writer = await own.connect()
            writer.write(said)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            assert own.kept.slow["head"] == 1
            assert len(own.kept) == 0
            writer.close()

    monkeypatch.setattr(runner, "HEAD_SECONDS", 0.3)
    run(test())


def test_so_does_each_further_one_and_between_two_there_is_time(tmp_path, run, monkeypatch):
    async def test() -> None:
        async with service(tmp_path) as own:
            reader, writer = await own.connect()
            for _ in range(2):
                writer.write(HEAD % b"quick")
                await asyncio.sleep(0.1)
                writer.write(b"\r\n")
                assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200")
                await asyncio.sleep(0.5)
            writer.write(HEAD % b"quick")
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            assert own.kept.slow["head"] == 1
            writer.close()

    monkeypatch.setattr(runner, "HEAD_SECONDS", 0.3)
    run(test())


def test_an_answer_has_to_be_taken(tmp_path, run, monkeypatch):
    async def test() -> None:
        async with service(tmp_path) as own:
            _, writer = await own.connect()
            writer.transport.pause_reading()
            writer.write(HEAD % b"large" + b"\r\n")
            await eventually(lambda: own.kept.slow["answer"] == 1)
            await eventually(lambda: len(own.kept) == 0)
            writer.transport.abort()
            assert await own.ask("quick") == b"here"

    monkeypatch.setattr(runner, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(runner, "SLOWEST", LARGE * 10)
    run(test())


def test_a_long_answer_has_longer(tmp_path, run, monkeypatch):
    async def test() -> None:
        async with service(tmp_path) as own:
            assert len(await own.ask("large")) == LARGE
            assert not own.kept.slow

    monkeypatch.setattr(runner, "ANSWER_SECONDS", 0.0)
    run(test())


def test_a_system_without_descriptors_is_asked_again(tmp_path, run, monkeypatch):
    async def test() -> None:
        async with service(tmp_path) as own:
            _, writer = await own.connect()
            with monkeypatch.context() as broken:
                broken.setattr(Acceptor, "_take", none_left)
                asked = asyncio.create_task(own.ask("quick"))
                await asyncio.sleep(0.3)
                assert not asked.done()
            assert await asked == b"here"
            writer.close()

    def none_left(_: Acceptor) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(acceptor, "_NO_MEANS", 0.1)
    run(test())


def test_in_the_end_handshakes_are_given_up(tmp_path, run):
    async def test() -> None:
        async with service(tmp_path) as own:
            clients = await own.silent(6)
            await eventually(lambda: own.door.handshakes == 4)
        await eventually(lambda: own.door.handshakes == 0)
        for client in clients:
            client.close()

    run(test())
