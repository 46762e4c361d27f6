"""Join tokens: `vtj1.<secret>[.<fingerprint>]`, both base64url without padding.

The secret opens enrolment; the fingerprint is the SHA-256 of the verifier's CA certificate (DER), so that the first
connection needs no trust on first use; a token without it needs the CA from a file. The text is sent only to a
server that this CA vouches for.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from msgspec import Struct

from agent.errors import ConfigError

_PREFIX: Final = "vtj1"
_PIN_SIZE: Final = 32
_MIN_SECRET: Final = 16


class JoinToken(Struct, frozen=True):
    """A parsed token. It is kept out of `repr` so that it ends in no log."""

    text: str
    ca_fingerprint: bytes | None

    def __repr__(self) -> str:
        return "JoinToken(...)"

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Check the form of a token; whether it is valid is the verifier's to say."""
        text = text.strip()
        parts = text.split(".")
        if parts[0] != _PREFIX or not 2 <= len(parts) <= 3:  # noqa: PLR2004 - the parts named above
            raise ConfigError("the join token is not of the form vtj1.SECRET.FINGERPRINT", _REMEDY)
        try:
            secret, *pins = (_decode(part) for part in parts[1:])
        except (binascii.Error, ValueError) as error:
            raise ConfigError(f"the join token is damaged: {error}", _REMEDY) from error
        if len(secret) < _MIN_SECRET or any(len(pin) != _PIN_SIZE for pin in pins):
            raise ConfigError("the join token is cut off", _REMEDY)
        return cls(text, pins[0] if pins else None)


_REMEDY: Final = "copy the whole line that `attest-verifier tokens create` printed"


def _decode(part: str) -> bytes:
    if not part.isascii() or any(character in "+/=" for character in part):
        raise ValueError("not base64url")
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
