"""What a database's error means for the caller. Errors that are not the database's are not touched.

`StoreUnavailable`: locked, closed, full, read-only, gone: nothing was stored, try again. `StoredDataDamaged`:
the database says of itself that it is corrupt. Anything else (a missing column, a broken constraint) is a bug
and stays what it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from verifier.errors import EvidenceError, StoredDataDamaged, StoreUnavailable, VerifierFault, VtpmAttestError
from verifier.reasons import Reason


class SchemaMismatch(VerifierFault):
    """The database was made by another version of this program. Nothing was read or changed."""


class StoreUrlError(VerifierFault):
    """The configured URL names no database this store can use."""


# Primary result codes: https://www.sqlite.org/rescode.html
_SQLITE_UNAVAILABLE: Final = frozenset({
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_AUTH,
})  # fmt: skip
_SQLITE_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY: Final = 0xFF

# SQLSTATE classes and codes: PostgreSQL documentation, appendix A.
_PG_UNAVAILABLE_CLASSES: Final = frozenset({"08", "53", "57", "58"})
_PG_UNAVAILABLE: Final = frozenset({"25006", "40001", "40P01", "55P03", "28P01", "28000", "3D000"})
_PG_DAMAGED: Final = frozenset({"XX001", "XX002"})
_PG_NUL: Final = "22021"
"""Text here cannot hold a NUL. What guests say is cleaned of it; a name that has one was made up by the caller."""
PG_READ_ONLY: Final = "25006"
_PG_RETRY: Final = frozenset({"40001", "40P01"})
"""Serialisation failure and deadlock: the transaction was rolled back for another's sake."""
_PG_MADE_TWICE: Final = ("23505", "pk_log_batch")
"""Two writers made the same id for their leaves, which one of them can do better."""


@contextmanager
def translated(
    *,
    unreachable: type[BaseException] | tuple[type[BaseException], ...] = (),
    native: type[BaseException] | tuple[type[BaseException], ...] = (),
) -> Iterator[None]:
    """Turn the database's own errors into ours.

    Args:
        unreachable: errors of the network that mean "cannot be reached" where this wraps a network database.
        native: errors of PostgreSQL's driver, which carry a code.
    """
    try:
        yield
    except (sqlite3.Error, DBAPIError) as error:
        fault: VtpmAttestError | None = (
            _of_sqlite(error) if isinstance(error, sqlite3.Error) else _of_dbapi(error)
        )
        if fault is None:
            raise
        raise fault from error
    except native as error:
        fault = _of_sqlstate(str(getattr(error, "sqlstate", None) or ""), error)
        if fault is None:
            raise
        raise fault from error
    except PoolTimeout as error:
        raise StoreUnavailable(f"no database connection became free: {error}") from error
    except unreachable as error:
        raise StoreUnavailable(f"the database cannot be reached: {error}") from error


def begun_again(error: Exception) -> bool:
    """Whether PostgreSQL undid a transaction that can succeed as it is."""
    native = getattr(error.orig, "__cause__", None) if isinstance(error, DBAPIError) else error
    state = getattr(native, "sqlstate", None)
    return state in _PG_RETRY or (state, getattr(native, "constraint_name", None)) == _PG_MADE_TWICE


def sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's five-character code, or empty."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _of_sqlite(error: BaseException) -> VerifierFault | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    if code & _PRIMARY in _SQLITE_UNAVAILABLE:
        return StoreUnavailable(f"SQLite: {error} ({getattr(error, 'sqlite_errorname', code)})")
    if code & _PRIMARY in _SQLITE_DAMAGED:
        return StoredDataDamaged(f"the database file is damaged: {error}")
    return None


def _of_dbapi(error: DBAPIError) -> VtpmAttestError | None:
    if isinstance(error.orig, sqlite3.Error):
        return _of_sqlite(error.orig)
    return _of_sqlstate(sqlstate(error), error.orig, gone=error.connection_invalidated)


def _of_sqlstate(state: str, error: BaseException | None, *, gone: bool = False) -> VtpmAttestError | None:
    if state == _PG_NUL:
        return EvidenceError(Reason.MALFORMED_REQUEST, "a name holds a NUL character")
    if state in _PG_DAMAGED:
        return StoredDataDamaged(f"PostgreSQL reports damaged data ({state}): {error}")
    if state in _PG_UNAVAILABLE or state[:2] in _PG_UNAVAILABLE_CLASSES or gone:
        return StoreUnavailable(f"PostgreSQL {state or 'connection'}: {error}")
    return None
