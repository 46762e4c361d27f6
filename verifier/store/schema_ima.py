"""The table of IMA lists, beside those of `schema`, whose conventions hold here too."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, Table, Text

from verifier.store.tables import metadata

# A proven part of a boot's IMA list; the blob of its digest has the bytes.
ima_piece: Final = Table(
    "ima_piece",
    metadata,
    Column("attester_id", Text, ForeignKey("attester.id"), primary_key=True),
    Column("reset_count", BigInteger, primary_key=True, autoincrement=False),
    Column("restart_count", BigInteger, primary_key=True, autoincrement=False),
    # As in `boot`: empty bytes where the boot has no log.
    Column("boot_log_sha256", LargeBinary, primary_key=True),
    # Byte it begins at, in all that was proven of this boot.
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Index("ix_ima_piece_sha256", "sha256"),
    sqlite_with_rowid=False,
)
