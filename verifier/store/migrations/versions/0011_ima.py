"""IMA lists: where the proven part of a boot's list ends and what it came to, and the pieces it was sent in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A nullable column, and a new table: no row is rewritten."""
    op.add_column("boot", sa.Column("ima", sa.Text(), nullable=True))
    op.create_table(
        "ima_piece",
        sa.Column("attester_id", sa.Text(), nullable=False),
        sa.Column("reset_count", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("restart_count", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("boot_log_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "attester_id", "reset_count", "restart_count", "boot_log_sha256", "start", name="pk_ima_piece"
        ),
        sa.ForeignKeyConstraint(["attester_id"], ["attester.id"], name="fk_ima_piece_attester_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_ima_piece_sha256", "ima_piece", ["sha256"])
