"""What is held of systemd's own log of a boot, so that it need not be sent again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A nullable column: no row is rewritten."""
    op.add_column("boot", sa.Column("userspace_log_sha256", sa.LargeBinary(), nullable=True))
