"""The transparency log: its tree as tiles, its checkpoints, and which leaf a verdict or an entry of the audit log is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

older_replicas = True
"""What they write has no leaf, as what was there before."""


def upgrade() -> None:
    """New tables, and two columns that no row has to have: neither database rewrites its rows for them."""
    for table in ("attestation", "audit"):
        op.add_column(table, sa.Column("log_batch", sa.BigInteger(), nullable=True))
        op.add_column(table, sa.Column("log_place", sa.Integer(), nullable=True))
    _batch()
    op.create_table(
        "log_tile",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "number", name="pk_log_tile"),
    )
    op.create_table(
        "log_checkpoint",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("size", name="pk_log_checkpoint"),
    )
    op.create_table(
        "log_cosignature",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("witness", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("size", "witness", name="pk_log_cosignature"),
    )
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_log_head"),
    )


def _batch() -> None:
    op.create_table(
        "log_batch",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("leaf_count", sa.Integer(), nullable=False),
        sa.Column("leaves", sa.LargeBinary(), nullable=True),
        sa.Column("first_index", sa.BigInteger(), nullable=True),
        sa.Column("lasting", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_log_batch"),
    )
    op.create_index("ix_log_batch_first_index", "log_batch", ["first_index"])
    waiting = sa.text("first_index IS NULL")
    op.create_index(
        "ix_log_batch_waiting", "log_batch", ["id"], sqlite_where=waiting, postgresql_where=waiting
    )
