"""What the leaves of the log are hashes of: a row's every column, as JSON in one form.

An entry is made from the row alone, so that an auditor makes it again from the database; whoever is handed one with
its proof hashes the bytes as they are. One form: the fields in the order below, no spaces, bytes as lower-case hex,
times as microseconds since 1970 UTC, JSON columns as the text that is stored. `kind` comes first and ends with the
version of the form: it changes with any change of the fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from verifier.transparency.errors import EntryError

MAX_ENTRY: Final = 16 * 1024 * 1024
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")


class VerdictEntry(
    msgspec.Struct, frozen=True, tag_field="kind", tag="verdict/1", forbid_unknown_fields=True
):
    """Every column of an `attestation` row, but for its place in the log."""

    tenant: str
    attester_id: str
    sequence: int
    tier: int
    judged_at: int
    valid_until: int
    policy_id: str | None
    policy_revision: str | None
    evidence_sha256: str
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    boot_id: str | None
    judgement: str
    rejudged_at: int | None
    evidence: str


class AuditEntry(msgspec.Struct, frozen=True, tag_field="kind", tag="audit/1", forbid_unknown_fields=True):
    """Every column of an `audit` row, but for its number, which the database gives, and its place in the log."""

    tenant: str
    at: int
    actor: str
    action: str
    subject: str
    reason: str
    detail: str


Entry = VerdictEntry | AuditEntry

_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(Entry)


def verdict_entry(row: Mapping[str, Any]) -> bytes:
    """The entry of an `attestation` row, from its columns as they are stored."""
    return _encode(
        VerdictEntry(
            row["tenant"],
            row["attester_id"],
            row["sequence"],
            row["tier"],
            row["judged_at"],
            row["valid_until"],
            row["policy_id"],
            row["policy_revision"],
            row["evidence_sha256"].hex(),
            row["clock"],
            row["reset_count"],
            row["restart_count"],
            bool(row["safe"]),
            row["boot_id"],
            row["judgement"].hex(),
            row["rejudged_at"],
            row["evidence"],
        )
    )


def audit_entry(row: Mapping[str, Any]) -> bytes:
    """The entry of an `audit` row, from its columns as they are stored."""
    return _encode(
        AuditEntry(
            row["tenant"],
            row["at"],
            row["actor"],
            row["action"],
            row["subject"],
            row["reason"],
            row["detail"],
        )
    )


def parse(data: bytes) -> Entry:
    """Read an entry.

    Raises:
        EntryError: no entry of a kind known here, or not in the one form in which entries are written.
    """
    if len(data) > MAX_ENTRY:
        raise EntryError(f"an entry of {len(data)} bytes; {MAX_ENTRY} are read at most")
    try:
        entry: Entry = _decoder.decode(data)
        # Two readers may differ over doubled keys or spaces; over the bytes that are hashed nobody can.
        if _encode(entry) != data:
            raise EntryError(
                "an entry that is not in its one form: other order, spaces, doubled fields or escapes"
            )
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise EntryError(f"no entry of a log: {error}") from error
    if isinstance(entry, VerdictEntry):
        for name in ("evidence_sha256", "judgement"):
            if not _HEX.fullmatch(getattr(entry, name)):
                raise EntryError(f"{name} is not bytes as lower-case hex")
    return entry
