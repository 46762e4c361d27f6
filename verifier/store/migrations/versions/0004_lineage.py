"""What is known of each TPM's past: its line of states, and whether a clone or rollback is open.

Attesters of before have no line yet: it begins from the boot they were last proven to be in.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Columns with constant defaults: no row is rewritten."""
    op.add_column("latest", sa.Column("position", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("latest", sa.Column("lineage", sa.Text(), nullable=True))
    op.add_column("latest", sa.Column("incident", sa.Text(), nullable=True))
    op.create_index(
        "ix_latest_incident",
        "latest",
        ["tenant", "attester_id"],
        sqlite_where=sa.text("incident IS NOT NULL"),
        postgresql_where=sa.text("incident IS NOT NULL"),
    )
