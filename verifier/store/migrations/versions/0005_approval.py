"""Enrolments that wait for a person, attesters that another one replaced, and the audit log.

Earlier enrolments are open challenges, which is what the defaults say of them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NEW_COLUMNS = {
    "source": sa.Text,
    "waits_for": sa.Text,
    "replaces": sa.Text,
    "activated_at": sa.BigInteger,
    "decided_at": sa.BigInteger,
    "decided_by": sa.Text,
    "decision_reason": sa.Text,
    "attester_id": sa.Text,
}


def upgrade() -> None:
    """Columns with constant defaults, and a new table: no row is rewritten."""
    for name, kind in _NEW_COLUMNS.items():
        op.add_column("enrollment", sa.Column(name, kind(), nullable=True))
    op.add_column("enrollment", sa.Column("status", sa.Text(), nullable=False, server_default="offered"))
    for columns in (("tenant", "status", "created_at", "id"), ("tenant", "ek_fingerprint", "status")):
        op.create_index(f"ix_enrollment_{'_'.join(columns)}", "enrollment", list(columns))
    op.create_index(
        "uq_enrollment_pending",
        "enrollment",
        ["tenant", "ek_fingerprint", "ak_name"],
        unique=True,
        sqlite_where=sa.text("status = 'pending'"),
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.add_column("attester", sa.Column("replaced_by", sa.Text(), nullable=True))
    op.create_index(
        "ix_attester_replaced",
        "attester",
        ["tenant", "replaced_by"],
        sqlite_where=sa.text("replaced_by IS NOT NULL"),
        postgresql_where=sa.text("replaced_by IS NOT NULL"),
    )
    _audit()


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            autoincrement=True,
        ),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit"),
    )
    op.create_index("ix_audit_tenant_sequence", "audit", ["tenant", "sequence"])
    op.create_index("ix_audit_tenant_subject_sequence", "audit", ["tenant", "subject", "sequence"])
