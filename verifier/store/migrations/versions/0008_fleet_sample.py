"""What the fleet looked like, once a minute, for plots over time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A new table."""
    op.create_table(
        "fleet_sample",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "at", name="pk_fleet_sample"),
    )
