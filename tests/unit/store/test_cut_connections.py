"""A connection that is cut in the middle of a transaction is an outage, never a fault of ours."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from verifier.errors import StoreUnavailable
from verifier.store.postgresql_backend import _within
from verifier.store.postgresql_hot import Line


class Cut:
    """asyncpg's connection, as it is once the server has gone."""

    def __init__(self) -> None:
        self.closed = False
        self.said: list[str] = []

    async def execute(self, query: str) -> str:
        if self.closed:
            raise asyncpg.InterfaceError("connection is closed")
        self.said.append(query)
        return ""

    def is_closed(self) -> bool:
        return self.closed

    def is_in_transaction(self) -> bool:
        return not self.closed

    def terminate(self) -> None:
        self.closed = True


@pytest.mark.parametrize("when", ["in a statement", "between two statements", "after the last statement"])
async def test_what_is_told_is_that_the_connection_was_cut(when):
    connection = Cut()

    async def connect():
        return connection

    async def work(given):
        given.closed = True
        if when == "between two statements":
            await given.execute("the second")
        if when == "in a statement":
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
        await Line(connect).transaction(work)
    assert connection.said == ["BEGIN"]


async def test_what_fails_on_a_sound_connection_is_undone():
    connection = Cut()

    async def connect():
        return connection

    async def work(given):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await Line(connect).transaction(work)
    assert connection.said == ["BEGIN", "ROLLBACK"]


async def test_nothing_runs_outside_a_transaction_where_the_connection_is_cut_once_it_has_begun():
    made: list[Cut] = []

    class CutAfterBegin(Cut):
        async def execute(self, query: str) -> str:
            answer = await super().execute(query)
            self.closed = True
            return answer

    async def connect():
        made.append(CutAfterBegin())
        return made[-1]

    async def work(given):
        raise AssertionError("without BEGIN")

    with pytest.raises(ConnectionError):
        await Line(connect).transaction(work)
    assert len(made) == 1


class OutOfStep(Cut):
    """As when the server's farewell came between two statements and has not been read: the driver lost its place."""

    lost = True

    async def execute(self, query: str) -> str:
        if self.lost:
            raise asyncpg.InternalClientError(
                "cannot switch to state 12; another operation (2) is in progress"
            )
        return await super().execute(query)


async def test_a_connection_that_is_out_of_step_is_left_for_another():
    made: list[OutOfStep] = []

    async def connect():
        made.append(OutOfStep())
        made[-1].lost = False
        return made[-1]

    async def work(given):
        await given.execute("the first")

    line = Line(connect)
    await line.transaction(work)
    made[0].lost = True
    await line.transaction(work)
    assert [each.closed for each in made] == [True, False]
    assert made[1].said == ["BEGIN", "the first", "COMMIT"]


async def test_whoever_turns_a_line_away_leaves_what_is_under_way_alone():
    """The driver has no words for a connection that another task ends under a statement."""
    made: list[Cut] = []
    asked, answered = asyncio.Event(), asyncio.Event()

    class Slow(Cut):
        async def fetch(self, query: str, *values: object) -> list[tuple[str, int]]:
            asked.set()
            await answered.wait()
            if self.closed:
                raise AttributeError("'NoneType' object has no attribute 'bind_execute'")
            return [(query, len(made))]

    async def connect():
        made.append(Slow())
        return made[-1]

    line = Line(connect)
    first = asyncio.create_task(line.read("SELECT 1"))
    await asked.wait()
    line.turn_away()
    answered.set()
    assert await first == [("SELECT 1", 1)]
    assert await line.read("SELECT 2") == [("SELECT 2", 2)]
    assert [each.closed for each in made] == [True, False]


async def test_a_connection_that_gets_out_of_step_is_an_outage_and_dropped():
    connection = Cut()

    async def connect():
        return connection

    async def work(given):
        await OutOfStep().execute("the second")

    with pytest.raises(StoreUnavailable, match="state 12"):
        async with _within(10):
            await Line(connect).transaction(work)
    assert connection.closed


async def test_another_error_of_the_driver_is_a_bug():
    with pytest.raises(asyncpg.InterfaceError):
        async with _within(10):
            raise asyncpg.InterfaceError("the server expects 2 arguments")


async def test_a_statement_that_stands_alone_is_sent_once_and_a_cut_connection_left():
    """It may have been done although nobody answered."""
    made: list[Cut] = []

    async def connect():
        made.append(Cut())
        return made[-1]

    async def cut(given):
        await given.execute("all at once")
        raise ConnectionResetError("reset by peer")

    line = Line(connect)
    with pytest.raises(ConnectionResetError):
        await line.alone(cut)
    assert [(each.said, each.closed) for each in made] == [(["all at once"], True)]
    await line.alone(lambda given: given.execute("the next"))
    line.turn_away()
    await line.alone(lambda given: given.execute("elsewhere"))
    assert [each.said for each in made[1:]] == [["the next"], ["elsewhere"]]


async def test_what_the_server_refuses_alone_leaves_its_connection():
    connection = Cut()

    async def connect():
        return connection

    async def refused(given):
        raise asyncpg.UniqueViolationError("spent before")

    line = Line(connect)
    with pytest.raises(asyncpg.UniqueViolationError):
        await line.alone(refused)
    assert not connection.closed
