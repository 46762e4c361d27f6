"""Connections to PostgreSQL, whichever of several servers is the one to write to now.

asyncpg reads the URL as libpq does, several hosts and TLS settings included, but has one patience for all hosts: a first
one that is dead and silent would use it up, and the second never be asked. So each host is asked with a patience of its
own, first the one that answered last.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from verifier.store.faults import StoreUrlError

PATIENCE: Final = 10.0
"""Seconds for all hosts together."""
_LEAST: Final = 1.0
_ASKED_AFTER: Final = 1.0
"""Seconds that a connection lay unused before it is asked whether it lives."""
_NOT_NOW: Final = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError)
_WRITABLE: Final = "read-write"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a host is not the one."""

    host: str
    problem: str


class Connector:
    """Makes connections. One of several hosts must be writable unless the URL says otherwise.

    Args:
        dsn: `postgresql://user@a:5432,b:5432/database?target_session_attrs=read-write`.
        settings: of the sessions.
        kept_text: characters of the longest statement that the driver keeps as prepared.
    """

    def __init__(self, dsn: str, settings: Mapping[str, str], *, kept_text: int = 15 * 1024) -> None:
        self._hosts = hosts(dsn)
        self._settings = dict(settings)
        self._kept_text = kept_text

    async def __call__(self) -> Any:  # noqa: ANN401 - asyncpg has no types
        """A connection to the first host that will have us.

        Raises:
            ConnectionError: none will, each for its reason.
            StoreUrlError: the URL asks for what asyncpg does not know.
        """
        refusals: list[_Refusal] = []
        patience = max(PATIENCE / len(self._hosts), _LEAST)
        for host, dsn in tuple(self._hosts.items()):
            try:
                found = await asyncpg.connect(
                    dsn,
                    timeout=patience,
                    server_settings=self._settings,
                    max_cacheable_statement_size=self._kept_text,
                )
            except asyncpg.exceptions.ClientConfigurationError as error:
                raise StoreUrlError(f"the database URL: {error}") from error
            except asyncpg.exceptions.TargetServerAttributeNotMatched:
                refusals.append(_Refusal(host, "takes no writes"))
            except _NOT_NOW as error:
                refusals.append(_Refusal(host, str(error) or f"no answer within {patience:g} s"))
            else:
                # First of all next time.
                self._hosts = {host: dsn} | self._hosts
                return found
        raise ConnectionError("; ".join(f"{one.host}: {one.problem}" for one in refusals))


def engine(connector: Connector, **options: Any) -> AsyncEngine:  # noqa: ANN401 - SQLAlchemy's
    """SQLAlchemy's engine over a `Connector`. What a statement was given (evidence, proofs) stays out of its errors, which are logged."""
    made = create_async_engine(
        "postgresql+asyncpg://", async_creator=connector, hide_parameters=True, **options
    )
    _tested(made)
    return made


def _tested(made: AsyncEngine) -> None:
    """Never use a connection that is known to be cut, and ask one that lay unused whether it lives.

    SQLAlchemy's own test asks each time, in a transaction: a third of an enrolment's round trips.
    """
    dialect = made.sync_engine.dialect

    def returned(_connection: object, record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        record.info["back"] = time.monotonic()

    def taken(connection: Any, record: Any, _proxy: object) -> None:  # noqa: ANN401 - SQLAlchemy's
        back = record.info.get("back")
        if back is None:  # just made
            return
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError
        if time.monotonic() - back > _ASKED_AFTER:
            try:
                dialect.do_ping(connection)
            except dialect.loaded_dbapi.Error as error:
                raise InvalidatePoolError from error

    event.listen(made.sync_engine, "checkin", returned)
    event.listen(made.sync_engine, "checkout", taken)


def hosts(dsn: str) -> dict[str, str]:
    """A URL for each of the hosts that one names, by host, in order."""
    parts = urlsplit(dsn)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    user, at, listed = parts.netloc.rpartition("@")
    named = listed.split(",") if listed else query.pop("host", "").split(",")
    ports = query.pop("port", "").split(",") if not listed else []
    if len(named) > 1:
        query.setdefault("target_session_attrs", _WRITABLE)
    found: dict[str, str] = {}
    for number, host in enumerate(named):
        mine = dict(query)
        if not listed and host:
            mine["host"] = host
        if ports and ports[0]:
            mine["port"] = ports[number if len(ports) > 1 else 0]
        netloc = f"{user}{at}{host if listed else ''}"
        asked = f"?{urlencode(mine)}" if mine else ""
        name = f"{host}:{mine['port']}" if "port" in mine else host or "localhost"
        found[name] = f"postgresql://{netloc}{parts.path}{asked}"
    return found
