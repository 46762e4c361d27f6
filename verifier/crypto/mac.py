"""HMAC-SHA256 under a key that stays: what depends on the key alone is worked out once."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC


class Mac:
    """HMAC-SHA256 (RFC 2104) of messages that all begin with `label`."""

    def __init__(self, key: bytes, label: bytes) -> None:
        self._begun = HMAC(key, SHA256())
        self._begun.update(label)

    def digest(self, message: bytes) -> bytes:
        """The 32 bytes for `label` and `message` behind it."""
        mac = self._begun.copy()
        mac.update(message)
        return mac.finalize()
