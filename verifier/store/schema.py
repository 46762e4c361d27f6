"""The tables, as SQLAlchemy Core; the migrations make them, a test compares the two.

Conventions (docs/store.md): times are integer microseconds since 1970 UTC; u64 values of a TPM are stored as the
signed 64-bit integer of the same bits; composite values are JSON text; digests and TPM structures are bytes.
Every row carries its tenant, but for the content-addressed bytes of `blob` and `judgement`, which belong to
nobody and are reached only through a tenant's attestation.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from verifier.store.schema_log import place_columns
from verifier.store.tables import metadata

__all__ = ["metadata"]

token: Final = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("uses_left", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    Index(None, "tenant", "created_at", "id"),
)

enrollment: Final = Table(
    "enrollment",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("ek_fingerprint", LargeBinary, nullable=False),
    Column("ek_public", LargeBinary, nullable=False),
    Column("ek_certificate", LargeBinary),
    Column("ek_issuer", Text),
    Column("ek_profile", Text, nullable=False),
    Column("endorsed_by", Text, nullable=False),
    Column("ak_name", LargeBinary, nullable=False),
    Column("ak_public", LargeBinary, nullable=False),
    Column("expected_proof", LargeBinary, nullable=False),
    Column("identity", Text, nullable=False),
    Column("token_id", Text),
    Column("source", Text),
    Column("status", Text, nullable=False, server_default="offered"),
    # Why a person has to decide; empty where nobody has to.
    Column("waits_for", Text),
    Column("replaces", Text),
    Column("activated_at", BigInteger),
    Column("decided_at", BigInteger),
    Column("decided_by", Text),
    Column("decision_reason", Text),
    Column("attester_id", Text),
    Index(None, "tenant", "status", "created_at", "id"),
    Index(None, "tenant", "ek_fingerprint", "status"),
    # A machine that asks again is the same question.
    Index(
        "uq_enrollment_pending",
        "tenant",
        "ek_fingerprint",
        "ak_name",
        unique=True,
        sqlite_where=text("status = 'pending'"),
        postgresql_where=text("status = 'pending'"),
    ),
)

endorsement_key: Final = Table(
    "endorsement_key",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("fingerprint", LargeBinary, primary_key=True),
    Column("public", LargeBinary, nullable=False),
    Column("certificate", LargeBinary),
    Column("issuer", Text),
    Column("profile", Text, nullable=False),
    Column("endorsed_by", Text, nullable=False),
    Column("first_seen_at", BigInteger, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
)

attester: Final = Table(
    "attester",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("ek_fingerprint", LargeBinary, nullable=False),
    Column("ak_name", LargeBinary, nullable=False),
    Column("identity", Text, nullable=False),
    Column("smbios_uuids", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("policy_id", Text),
    Column("enrolled_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    # Lower case: id, hostname and every UUID ever claimed, one a line, as far as they fit into an index.
    Column("search_text", Text, nullable=False),
    # The attester of the TPM that this machine has now.
    Column("replaced_by", Text),
    Index(
        "ix_attester_replaced",
        "tenant",
        "replaced_by",
        sqlite_where=text("replaced_by IS NOT NULL"),
        postgresql_where=text("replaced_by IS NOT NULL"),
    ),
    # PostgreSQL has `ix_attester_trigrams` beside it where it may (revision 0018). An attestation that confirms what its
    # guest said before writes no column of this table.
    Index("ix_attester_search", "tenant", "id", "search_text"),
    UniqueConstraint("tenant", "ek_fingerprint"),
    ForeignKeyConstraint(
        ["tenant", "ek_fingerprint"], ["endorsement_key.tenant", "endorsement_key.fingerprint"]
    ),
)

attestation_key: Final = Table(
    "attestation_key",
    metadata,
    Column("attester_id", Text, ForeignKey("attester.id"), primary_key=True),
    Column("name", LargeBinary, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("public", LargeBinary, nullable=False),
    Column("activated_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
)

# Index of `attester.smbios_uuids` and `attester.labels` by value, written with them.
attester_uuid: Final = Table(
    "attester_uuid",
    metadata,
    Column("attester_id", Text, ForeignKey("attester.id"), primary_key=True),
    Column("smbios_uuid", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Index(None, "tenant", "smbios_uuid", "attester_id"),
)
attester_label: Final = Table(
    "attester_label",
    metadata,
    Column("attester_id", Text, ForeignKey("attester.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Index(None, "tenant", "key", "value", "attester_id"),
)

blob: Final = Table(
    "blob",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("codec", SmallInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    # To the day, so that naming a blob again is seldom a write; retention reads it.
    Column("last_used_at", BigInteger, nullable=False, index=True),
)

# A verdict's vector and findings, content-addressed like a blob: a steady machine is told the same every time.
judgement: Final = Table(
    "judgement",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("codec", SmallInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("last_used_at", BigInteger, nullable=False, index=True),
)


def _verdict_columns(*, empty: bool) -> tuple[Column[object], ...]:
    """What `latest` copies from `attestation`; `empty` where an attester has no verdict yet."""
    return (
        Column("tier", SmallInteger, nullable=empty),
        Column("judged_at", BigInteger, nullable=empty),
        Column("valid_until", BigInteger, nullable=empty),
        Column("policy_id", Text),
        Column("policy_revision", Text),
        Column("evidence_sha256", LargeBinary, nullable=empty),
        Column("clock", BigInteger, nullable=empty),
        Column("reset_count", BigInteger, nullable=empty),
        Column("restart_count", BigInteger, nullable=empty),
        Column("safe", Boolean, nullable=empty),
        Column("boot_id", Text),
        # A foreign key on SQLite alone: see `partitions`.
        Column("judgement", LargeBinary, ForeignKey("judgement.digest"), nullable=empty),
        # When it was judged again from stored evidence; `judged_at` is when that came.
        Column("rejudged_at", BigInteger),
    )


attestation: Final = Table(
    "attestation",
    metadata,
    Column("attester_id", Text, ForeignKey("attester.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", Text, nullable=False),
    *_verdict_columns(empty=False),
    Column("evidence", Text, nullable=False),
    *place_columns(),
    # PostgreSQL drops whole partitions instead: `verifier.store.partitions`.
    Index(None, "judged_at"),
    sqlite_with_rowid=False,
)

boot: Final = Table(
    "boot",
    metadata,
    Column("attester_id", Text, ForeignKey("attester.id"), primary_key=True),
    Column("reset_count", BigInteger, primary_key=True, autoincrement=False),
    Column("restart_count", BigInteger, primary_key=True, autoincrement=False),
    # Empty bytes where the boot has no log: part of a key cannot be NULL.
    Column("boot_log_sha256", LargeBinary, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("clock", BigInteger, nullable=False),
    Column("safe", Boolean, nullable=False),
    Column("firmware_version", BigInteger, nullable=False),
    Column("boot_id", Text),
    Column("first_seen_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    # As sent last: systemd's log grows while a boot goes on, so that it is no part of the key.
    Column("userspace_log_sha256", LargeBinary),
    # JSON: where the proven part of the IMA list ends, and what it came to.
    Column("ima", Text),
    sqlite_with_rowid=False,
)

latest: Final = Table(
    "latest",
    metadata,
    Column("attester_id", Text, ForeignKey("attester.id"), primary_key=True),
    Column("tenant", Text, nullable=False),
    # Of the newest attestation; 0 before the first.
    Column("sequence", BigInteger, nullable=False),
    # pending, enrolled, revoked or retired; stale follows from `valid_until`.
    Column("lifecycle", Text, nullable=False),
    *_verdict_columns(empty=True),
    # With `attester_id` the key of the boot last proven.
    Column("boot_reset_count", BigInteger),
    Column("boot_restart_count", BigInteger),
    Column("boot_log_sha256", LargeBinary),
    # Changes with every change of the line of states below: whoever judged by an older one has to judge again.
    Column("position", BigInteger, nullable=False, server_default="0"),
    # JSON of `verifier.appraisal.lineage.Lineage`, and the kind of its open incident, to be found by.
    Column("lineage", Text),
    Column("incident", Text),
    Index(
        "ix_latest_incident",
        "tenant",
        "attester_id",
        sqlite_where=text("incident IS NOT NULL"),
        postgresql_where=text("incident IS NOT NULL"),
    ),
    # In the order of listings, with all that they filter by: however rare what is sought, only this is read. The
    # id comes first so that a new verdict changes its entry in place.
    Index("ix_latest_fleet", "tenant", "attester_id", "lifecycle", "tier", "judged_at", "valid_until"),
)

nonce: Final = Table(
    "nonce",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("attester_id", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

policy: Final = Table(
    "policy",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("revision", Text, primary_key=True),
    # Order in which the revisions of this id were added; the highest is current.
    Column("position", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("tenant", "id", "position"),
)

assignment: Final = Table(
    "assignment",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("policy_id", Text, nullable=False),
    # Empty: whichever revision is current.
    Column("revision", Text),
    Column("mode", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("selector", Text, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

# CA certificates and revocation lists, never changed; what a tenant trusted once stays on record.
anchor_set: Final = Table(
    "anchor_set",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("codec", SmallInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

anchor_assignment: Final = Table(
    "anchor_assignment",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("purposes", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("assigned_at", BigInteger, nullable=False),
    Column("assigned_by", Text, nullable=False),
    ForeignKeyConstraint(["tenant", "digest"], ["anchor_set.tenant", "anchor_set.digest"]),
)

# Decisions of people, append-only, written in the transaction of what they changed.
audit: Final = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    *place_columns(),
    Index(None, "tenant", "sequence"),
    Index(None, "tenant", "subject", "sequence"),
)

# One row that a health check writes: the only way to know that writes work.
probe: Final = Table(
    "probe",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("writes", BigInteger, nullable=False),
)

# Which code may work on this schema, for replicas of two versions side by side.
schema_support: Final = Table(
    "schema_support",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # The oldest revision whose code can.
    Column("oldest", Text, nullable=False),
)
