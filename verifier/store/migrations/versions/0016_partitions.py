"""PostgreSQL's `attestation` divided by time, so that old history goes as whole partitions; which older code may go on.

No row is moved: the table as it is becomes the partition of everything up to a Monday to come. PostgreSQL has to be
sure that it holds nothing later, which takes a look at every row: `ahead` has that done while replicas work on, by a
check that is first only believed for new rows and then proven for the old ones.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

older_replicas = True
_DAY = 86_400_000_000
_MONDAY = 4 * _DAY
"""1970 began on a Thursday."""
_CHECK = "ck_attestation_before_"


def ahead(connection: sa.Connection) -> None:
    """Prove, without holding anybody up, until when the rows are. May be called again."""
    if connection.exec_driver_sql("SELECT to_regclass('attestation')").scalar() is None:
        return
    bound = _bound(connection)
    for proven in _proven(connection) - {bound}:
        connection.exec_driver_sql(f"ALTER TABLE attestation DROP CONSTRAINT {_CHECK}{proven}")
    if bound not in _proven(connection):
        connection.exec_driver_sql(
            f"ALTER TABLE attestation ADD CONSTRAINT {_CHECK}{bound} CHECK (judged_at < {bound}) NOT VALID"
        )
    connection.exec_driver_sql(f"ALTER TABLE attestation VALIDATE CONSTRAINT {_CHECK}{bound}")


def upgrade() -> None:
    """Divide the table on PostgreSQL; SQLite keeps it whole."""
    op.create_table(
        "schema_support",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("oldest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schema_support"),
    )
    op.execute("INSERT INTO schema_support (id, oldest) VALUES (1, '0016')")
    if op.get_bind().dialect.name == "postgresql":
        _divide(op.get_bind())


def _divide(connection: sa.Connection) -> None:
    # In the order in which recordings take them, and before anything is held.
    for table in ("latest", "attester", "judgement", "attestation"):
        connection.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    bound = _bound(connection)
    is_empty = connection.exec_driver_sql("SELECT NOT EXISTS (SELECT FROM attestation)").scalar()
    for statement in (
        "ALTER TABLE attestation RENAME TO attestation_before",
        "ALTER TABLE attestation_before RENAME CONSTRAINT pk_attestation TO pk_attestation_before",
        "ALTER INDEX ix_attestation_judged_at RENAME TO ix_attestation_before_judged_at",
        # The judgement that all of an image share need not be locked by each attestation: retention sees to it.
        "ALTER TABLE attestation_before DROP CONSTRAINT fk_attestation_judgement",
        "ALTER TABLE latest DROP CONSTRAINT fk_latest_judgement",
        # Attesters are never deleted, and a partition that refers to none comes and goes without locking them.
        "ALTER TABLE attestation_before DROP CONSTRAINT fk_attestation_attester_id",
        "CREATE TABLE attestation (LIKE attestation_before INCLUDING DEFAULTS) PARTITION BY RANGE (judged_at)",
    ):
        connection.exec_driver_sql(statement)
    if is_empty:
        connection.exec_driver_sql("DROP TABLE attestation_before")
    else:
        attach = "ALTER TABLE attestation ATTACH PARTITION attestation_before FOR VALUES FROM (MINVALUE)"
        connection.exec_driver_sql(f"{attach} TO ({bound})")
        connection.exec_driver_sql(
            f"ALTER TABLE attestation_before DROP CONSTRAINT IF EXISTS {_CHECK}{bound}"
        )
    # The weeks that follow are made by whoever serves, ahead of time.
    connection.exec_driver_sql(
        "CREATE TABLE attestation_rest (LIKE attestation INCLUDING DEFAULTS, "
        "CONSTRAINT pk_attestation_rest PRIMARY KEY (attester_id, sequence))"
    )
    connection.exec_driver_sql("ALTER TABLE attestation ATTACH PARTITION attestation_rest DEFAULT")


def _bound(connection: sa.Connection) -> int:
    """A Monday at least a day ahead and later than every row, whatever clock has dated that."""
    now = datetime.now(UTC)
    today = int(now.timestamp()) * 1_000_000
    usable = [proven for proven in _proven(connection) if proven > today + _DAY]
    if usable:
        return max(usable)
    latest = connection.exec_driver_sql("SELECT max(judged_at) FROM attestation").scalar() or 0
    beyond = max(today + 7 * _DAY, latest)
    return (beyond - _MONDAY) // (7 * _DAY) * 7 * _DAY + _MONDAY + 7 * _DAY


def _proven(connection: sa.Connection) -> set[int]:
    """Bounds for which there are checks."""
    names = connection.exec_driver_sql(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'attestation'::regclass AND contype = 'c'"
    ).scalars()
    return {int(name.removeprefix(_CHECK)) for name in names if name.startswith(_CHECK)}
