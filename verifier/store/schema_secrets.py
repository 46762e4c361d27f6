"""The tables of secrets for machines, beside those of `schema`, whose conventions hold here too."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, LargeBinary, Table, Text

from verifier.store.tables import metadata

secret: Final = Table(
    "secret",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False),
    # Counts the times it was put.
    Column("revision", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    # Encrypted for tenant, name and revision, with a key that is not in the database.
    Column("key_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("changed_by", Text, nullable=False),
)

# Who may have a secret: whoever is all that a row says.
secret_grant: Final = Table(
    "secret_grant",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("attester_id", Text),
    # JSON object; empty: whatever labels it has.
    Column("labels", Text, nullable=False),
    Column("policy_id", Text),
    # Empty: as often as it is asked for.
    Column("uses_left", BigInteger),
    Column("expires_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    ForeignKeyConstraint(
        ["tenant", "secret"],
        ["secret.tenant", "secret.name"],
        name="fk_secret_grant_secret",
        ondelete="CASCADE",
    ),
    Index("ix_secret_grant_secret", "tenant", "secret"),
)
