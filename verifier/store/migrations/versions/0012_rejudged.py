"""When a verdict was judged again from stored evidence; `judged_at` stays the time at which the evidence came."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nullable columns: no row is rewritten."""
    for table in ("attestation", "latest"):
        op.add_column(table, sa.Column("rejudged_at", sa.BigInteger(), nullable=True))
