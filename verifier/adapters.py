"""The world as it is: wall clock and the operating system's randomness."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime


class SystemClock:
    """The `Clock` port over the machine's clock."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)


class SystemRandom:
    """The `Random` port over the operating system's generator."""

    def bytes(self, count: int) -> bytes:
        """Cryptographically strong."""
        return secrets.token_bytes(count)
