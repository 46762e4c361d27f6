"""The program that writes a worker's recordings to SQLite: a process, so that the two do not wait for one interpreter lock.

`verifier.store.sqlite_process` starts it and asks. It decides nothing: statements and rows are given, what it found and did
is answered. Nothing but the standard library is imported: it starts in 20 ms and takes 10 MB. It lives until the connection
ends, and so no longer than its worker, however that ends; a transaction that was not committed by then is undone.

A request and an answer are four bytes of length, little-endian, and so many bytes of `marshal`; one answer to each request.
"""

from __future__ import annotations

import marshal
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final

HEAD: Final = 4
_ENDS_WITH_ITS_WORKER: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Sent to all processes of a terminal or a service at once; the worker has still to finish what it has begun."""


class _Writer:
    """One connection, opened when it is needed, and at most one transaction."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None

    def begin(
        self, known: str, ids: str, at_once: tuple[Any, ...] | None = None
    ) -> list[tuple[Any, ...]] | None:
        """Open a transaction, and read who is known in it. Or do all of it `at_once`: None.

        That is a query, what it finds if that can be done, and what `write` is given then.
        """
        if self._connection is None:
            self._connection = self._connect()
        self._connection.execute("BEGIN IMMEDIATE")
        if at_once is not None:
            judged, judged_by, *rest = at_once
            if set(self._connection.execute(judged, (ids,))) == set(judged_by):
                if self.write(*rest) is None:
                    return None
                self._connection.execute("ROLLBACK")
                self._connection.execute("BEGIN IMMEDIATE")
        return self._connection.execute(known, (ids,)).fetchall()

    def write(
        self, spend: str, nonces: Sequence[Sequence[Any]], parts: Sequence[tuple[str, Any]]
    ) -> list[bool] | None:
        """Spend the nonces, insert the rows and commit: None. Or which nonces were fresh, if not all: nothing is inserted."""
        connection = self._connection
        if connection is None or not connection.in_transaction:
            raise sqlite3.ProgrammingError("nothing was begun")
        fresh = [connection.execute(spend, nonce).rowcount == 1 for nonce in nonces]
        if not all(fresh):
            return fresh
        for insert, rows in parts:
            connection.executemany(insert, rows)
        connection.execute("COMMIT")
        return None

    def undo(self) -> None:
        """End the transaction, if there is one; where that fails, the connection with it."""
        connection = self._connection
        if connection is None or not connection.in_transaction:
            return
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection = None
            connection.close()


def _adapt_at_once() -> None:
    """The module asks every value that is no number or text whether it wants to be another, which costs more than to bind it.

    A registered adapter is asked first: these give back what they are given, a truth as a number.
    """
    sqlite3.register_adapter(bytes, bytes)
    sqlite3.register_adapter(bool, int)
    nothing: dict[None, None] = {}
    sqlite3.register_adapter(type(None), nothing.get)


def opened(uri: str, busy_seconds: float, pragmas: Sequence[str]) -> sqlite3.Connection:
    """A connection in autocommit mode, set up as every one to this file is."""
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=busy_seconds, cached_statements=256
    )
    try:
        for pragma in pragmas:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def _answered(writer: _Writer, request: tuple[Any, ...]) -> tuple[Any, ...]:
    """True and the result, or False and what is needed to raise the error on the other side, which asks for `undo` then."""
    name, *arguments = request
    try:
        return True, getattr(writer, name)(*arguments)
    except Exception as error:  # noqa: BLE001 - told to who asked, who knows what to do about it
        code, known_as = getattr(error, "sqlite_errorcode", None), getattr(error, "sqlite_errorname", None)
        return False, type(error).__name__, str(error), code, known_as


def _read(source: BinaryIO) -> Any:  # noqa: ANN401 - what was sent
    """The next request; None at the end."""
    head = source.read(HEAD)
    size = int.from_bytes(head, "little")
    body = source.read(size) if len(head) == HEAD else b""
    return marshal.loads(body) if body and len(body) == size else None  # noqa: S302 - of the process that started this one


def main(fd: int) -> None:
    """Serve the connection with this number until its other end is closed."""
    for number in _ENDS_WITH_ITS_WORKER:
        signal.signal(number, signal.SIG_IGN)
    source, sink = open(fd, "rb"), open(fd, "wb", closefd=False)  # noqa: SIM115 - open as long as the process lives
    try:
        _serve(source, sink)
    except ConnectionError:  # the worker was killed
        os._exit(0)  # or what it was not told would be sent once more
    sink.close()


def _serve(source: BinaryIO, sink: BinaryIO) -> None:
    setup = _read(source)
    if setup is None:
        return
    _adapt_at_once()
    writer = _Writer(lambda: opened(*setup))
    while (request := _read(source)) is not None:
        body = marshal.dumps(_answered(writer, request))
        sink.write(len(body).to_bytes(HEAD, "little") + body)
        sink.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
