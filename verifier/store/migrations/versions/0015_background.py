"""What was dropped of spent nonces, how far the fleet is judged again, and which verdicts are of a clock that was ahead."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_INDEX = "ix_latest_fleet"
_NEW = f"{_INDEX}_new"
_COLUMNS = ["tenant", "attester_id", "lifecycle", "tier", "judged_at", "valid_until"]


def ahead(connection: sa.Connection) -> None:
    """Make the new index on PostgreSQL while replicas work on. May be called again."""
    if connection.exec_driver_sql("SELECT to_regclass('latest')").scalar() is None:
        return
    # One that was begun and not finished is of no use, and is never finished.
    connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {_NEW}")
    connection.exec_driver_sql(f"CREATE INDEX CONCURRENTLY {_NEW} ON latest ({', '.join(_COLUMNS)})")


def upgrade() -> None:
    """Two small tables, and one more column in the index of listings."""
    op.create_table(
        "nonce_floor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dropped_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nonce_floor"),
    )
    op.execute("INSERT INTO nonce_floor (id, dropped_until) VALUES (1, 0)")
    op.create_table(
        "rejudging",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("everyone", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("claimed_until", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "policy_id", name="pk_rejudging"),
        sqlite_with_rowid=False,
    )
    op.drop_index(_INDEX, "latest")
    if op.get_bind().dialect.name == "postgresql" and _is_made(op.get_bind()):
        op.execute(f"ALTER INDEX {_NEW} RENAME TO {_INDEX}")
    else:
        op.create_index(_INDEX, "latest", _COLUMNS)


def _is_made(connection: sa.Connection) -> bool:
    is_made = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return bool(connection.execute(is_made, {"name": _NEW}).scalar())
