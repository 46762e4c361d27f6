"""Tenants, tokens, enrolments, attesters and their keys, attestations, the fleet view.

The tables are spelt out here, not taken from `schema.py`: this is what version 0.1 made, for ever.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table; what others refer to comes first."""
    _create_blob()
    _create_endorsement_key()
    _create_enrollment()
    _create_judgement()
    _create_nonce()
    _create_policy()
    _create_probe()
    _create_token()
    _create_attester()
    _create_attestation()
    _create_attestation_key()
    _create_attester_label()
    _create_attester_uuid()
    _create_boot()
    _create_latest()
    op.execute("INSERT INTO probe (id, writes) VALUES (1, 0)")


def _create_blob() -> None:
    op.create_table(
        "blob",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("codec", sa.SmallInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blob"),
    )
    op.create_index("ix_blob_last_used_at", "blob", ["last_used_at"], unique=False)


def _create_endorsement_key() -> None:
    op.create_table(
        "endorsement_key",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=True),
        sa.Column("issuer", sa.Text(), nullable=True),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("endorsed_by", sa.Text(), nullable=False),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "fingerprint", name="pk_endorsement_key"),
    )


def _create_enrollment() -> None:
    op.create_table(
        "enrollment",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("ek_fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("ek_public", sa.LargeBinary(), nullable=False),
        sa.Column("ek_certificate", sa.LargeBinary(), nullable=True),
        sa.Column("ek_issuer", sa.Text(), nullable=True),
        sa.Column("ek_profile", sa.Text(), nullable=False),
        sa.Column("endorsed_by", sa.Text(), nullable=False),
        sa.Column("ak_name", sa.LargeBinary(), nullable=False),
        sa.Column("ak_public", sa.LargeBinary(), nullable=False),
        sa.Column("expected_proof", sa.LargeBinary(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_enrollment"),
    )
    op.create_index("ix_enrollment_expires_at", "enrollment", ["expires_at"], unique=False)


def _create_judgement() -> None:
    op.create_table(
        "judgement",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("codec", sa.SmallInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_judgement"),
    )
    op.create_index("ix_judgement_last_used_at", "judgement", ["last_used_at"], unique=False)


def _create_nonce() -> None:
    op.create_table(
        "nonce",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("attester_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_nonce"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_nonce_expires_at", "nonce", ["expires_at"], unique=False)


def _create_policy() -> None:
    op.create_table(
        "policy",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", "revision", name="pk_policy"),
        sa.UniqueConstraint("tenant", "id", "position", name="uq_policy_tenant_id_position"),
    )


def _create_probe() -> None:
    op.create_table(
        "probe",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("writes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_probe"),
    )


def _create_token() -> None:
    op.create_table(
        "token",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("uses_left", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
        sa.UniqueConstraint("secret_hash", name="uq_token_secret_hash"),
    )
    op.create_index("ix_token_tenant_created_at_id", "token", ["tenant", "created_at", "id"], unique=False)


def _create_attester() -> None:
    op.create_table(
        "attester",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("ek_fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("ak_name", sa.LargeBinary(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("smbios_uuids", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("policy_id", sa.Text(), nullable=True),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "ek_fingerprint"],
            ["endorsement_key.tenant", "endorsement_key.fingerprint"],
            name="fk_attester_tenant_ek_fingerprint",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_attester"),
        sa.UniqueConstraint("tenant", "ek_fingerprint", name="uq_attester_tenant_ek_fingerprint"),
    )
    op.create_index("ix_attester_search", "attester", ["tenant", "id", "search_text"])


def _create_attestation() -> None:
    op.create_table(
        "attestation",
        sa.Column("attester_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("tier", sa.SmallInteger(), nullable=False),
        sa.Column("judged_at", sa.BigInteger(), nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=False),
        sa.Column("policy_id", sa.Text(), nullable=True),
        sa.Column("policy_revision", sa.Text(), nullable=True),
        sa.Column("evidence_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("clock", sa.BigInteger(), nullable=False),
        sa.Column("reset_count", sa.BigInteger(), nullable=False),
        sa.Column("restart_count", sa.BigInteger(), nullable=False),
        sa.Column("safe", sa.Boolean(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=True),
        sa.Column("judgement", sa.LargeBinary(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["attester_id"], ["attester.id"], name="fk_attestation_attester_id"),
        sa.ForeignKeyConstraint(["judgement"], ["judgement.digest"], name="fk_attestation_judgement"),
        sa.PrimaryKeyConstraint("attester_id", "sequence", name="pk_attestation"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_attestation_judged_at", "attestation", ["judged_at"], unique=False)


def _create_attestation_key() -> None:
    op.create_table(
        "attestation_key",
        sa.Column("attester_id", sa.Text(), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("activated_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["attester_id"], ["attester.id"], name="fk_attestation_key_attester_id"),
        sa.PrimaryKeyConstraint("attester_id", "name", name="pk_attestation_key"),
    )


def _create_attester_label() -> None:
    op.create_table(
        "attester_label",
        sa.Column("attester_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["attester_id"], ["attester.id"], name="fk_attester_label_attester_id"),
        sa.PrimaryKeyConstraint("attester_id", "key", name="pk_attester_label"),
    )
    op.create_index(
        "ix_attester_label_tenant_key_value_attester_id",
        "attester_label",
        ["tenant", "key", "value", "attester_id"],
        unique=False,
    )


def _create_attester_uuid() -> None:
    op.create_table(
        "attester_uuid",
        sa.Column("attester_id", sa.Text(), nullable=False),
        sa.Column("smbios_uuid", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["attester_id"], ["attester.id"], name="fk_attester_uuid_attester_id"),
        sa.PrimaryKeyConstraint("attester_id", "smbios_uuid", name="pk_attester_uuid"),
    )
    op.create_index(
        "ix_attester_uuid_tenant_smbios_uuid_attester_id",
        "attester_uuid",
        ["tenant", "smbios_uuid", "attester_id"],
        unique=False,
    )


def _create_boot() -> None:
    op.create_table(
        "boot",
        sa.Column("attester_id", sa.Text(), nullable=False),
        sa.Column("reset_count", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("restart_count", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("boot_log_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("clock", sa.BigInteger(), nullable=False),
        sa.Column("safe", sa.Boolean(), nullable=False),
        sa.Column("firmware_version", sa.BigInteger(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=True),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["attester_id"], ["attester.id"], name="fk_boot_attester_id"),
        sa.PrimaryKeyConstraint(
            "attester_id", "reset_count", "restart_count", "boot_log_sha256", name="pk_boot"
        ),
        sqlite_with_rowid=False,
    )


def _create_latest() -> None:
    op.create_table(
        "latest",
        sa.Column("attester_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("lifecycle", sa.Text(), nullable=False),
        sa.Column("tier", sa.SmallInteger(), nullable=True),
        sa.Column("judged_at", sa.BigInteger(), nullable=True),
        sa.Column("valid_until", sa.BigInteger(), nullable=True),
        sa.Column("policy_id", sa.Text(), nullable=True),
        sa.Column("policy_revision", sa.Text(), nullable=True),
        sa.Column("evidence_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("clock", sa.BigInteger(), nullable=True),
        sa.Column("reset_count", sa.BigInteger(), nullable=True),
        sa.Column("restart_count", sa.BigInteger(), nullable=True),
        sa.Column("safe", sa.Boolean(), nullable=True),
        sa.Column("boot_id", sa.Text(), nullable=True),
        sa.Column("judgement", sa.LargeBinary(), nullable=True),
        sa.Column("boot_reset_count", sa.BigInteger(), nullable=True),
        sa.Column("boot_restart_count", sa.BigInteger(), nullable=True),
        sa.Column("boot_log_sha256", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["attester_id"], ["attester.id"], name="fk_latest_attester_id"),
        sa.ForeignKeyConstraint(["judgement"], ["judgement.digest"], name="fk_latest_judgement"),
        sa.PrimaryKeyConstraint("attester_id", name="pk_latest"),
    )
    op.create_index(
        "ix_latest_fleet", "latest", ["tenant", "attester_id", "lifecycle", "tier", "valid_until"]
    )
