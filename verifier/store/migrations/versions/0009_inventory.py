"""What inventories said last, and what happened to their machines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """New tables."""
    op.create_table(
        "inventory_machine",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("kept_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "source", "id", name="pk_inventory_machine"),
    )
    op.create_table(
        "inventory_source",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("synced_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name="pk_inventory_source"),
    )
    op.create_table(
        "inventory_event",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_inventory_event"),
        sa.UniqueConstraint("tenant", "id", name="uq_inventory_event_tenant_id"),
    )
    op.create_index("ix_inventory_event_at", "inventory_event", ["at"])
    op.create_index(
        "ix_inventory_event_tenant_machine_sequence", "inventory_event", ["tenant", "machine", "sequence"]
    )
    op.create_index(
        "ix_inventory_event_tenant_origin_sequence", "inventory_event", ["tenant", "origin", "sequence"]
    )
