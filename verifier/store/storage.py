"""How much room each table takes, as the database itself counts."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, func, select, table, text

from verifier.ports_history import StoredTable
from verifier.store import partitions, values

_POSTGRESQL: Final = text(
    "SELECT c.relname, p.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid) FROM pg_class c "
    "LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent "
    "WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace"
)
_SIZES: Final = text(
    "SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name "
    "WHERE s.aggregate = TRUE GROUP BY m.tbl_name"
)


def of_postgresql(connection: Connection) -> list[StoredTable]:
    """Rows as of the last ANALYZE, which autovacuum does by itself."""
    bounds = {one.name: one for one in partitions.partitions(connection)}
    found: list[StoredTable] = []
    for name, parent, rows, size in connection.execute(_POSTGRESQL):
        of_time = bounds.get(name)
        found.append(
            StoredTable(
                name=name,
                partition_of=parent,
                rows=rows,
                size=size,
                begins=None if of_time is None else values.moment_or_none(of_time.begins),
                ends=None if of_time is None else values.moment(of_time.ends),
            )
        )
    return found


def of_sqlite(connection: Connection) -> list[StoredTable]:
    """Counted: every page of the file is looked at. Sizes are 0 where this SQLite was built without `dbstat`."""
    tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
    counts = connection.exec_driver_sql(
        "SELECT count(*) FROM pragma_module_list WHERE name = 'dbstat'"
    ).scalar()
    sizes: dict[str, int] = {}
    if counts:
        sizes = {row[0]: row[1] for row in connection.execute(_SIZES)}
    return [
        StoredTable(
            name=name,
            partition_of=None,
            rows=connection.execute(select(func.count()).select_from(table(name))).scalar_one(),
            size=sizes.get(name, 0),
        )
        for name in tables
        if not name.startswith("sqlite_")
    ]


def revision(connection: Connection) -> str:
    """Of the schema."""
    found: str = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    return found
