"""How an entry of an IMA list is extended into each PCR bank (Linux, security/integrity/ima/ima_queue.c)."""

from __future__ import annotations

import enum


class BankRule(enum.StrEnum):
    """What the kernel extends into a bank. The SHA-1 bank is the same under both."""

    OWN_HASH = "own-hash"
    """The bank's own hash of the template data (Linux 5.8 and later, where the kernel has that hash)."""
    PADDED_SHA1 = "padded-sha1"
    """The SHA-1 of the template data, padded with zeroes (before 5.8, and for hashes the kernel lacks)."""
