"""Opaque cursors of listings: where the next page starts, and which listing it belongs to.

A cursor is no secret and grants nothing: the tenant and the filter always come from the request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from verifier.errors import EvidenceError
from verifier.reasons import Reason

_VERSION: Final = b"\x01"
_MARK_SIZE: Final = 8
_MAX_LENGTH: Final = 256


def encode_cursor(after: str, tenant: str, where: object) -> str:
    """A cursor for what follows `after` in this listing; the `repr` of `where` tells it from others."""
    body = _VERSION + after.encode()
    return base64.urlsafe_b64encode(_mark(body, tenant, where) + body).rstrip(b"=").decode()


def decode_cursor(cursor: str, tenant: str, where: object) -> str:
    """What to go on from.

    Raises:
        EvidenceError: `malformed-request`: not a cursor, or one of another listing.
    """
    if len(cursor) > _MAX_LENGTH:
        raise _refused(f"it has {len(cursor)} characters")
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
        after = data[_MARK_SIZE + 1 :].decode()
    except (UnicodeError, binascii.Error) as error:
        raise _refused("it does not decode") from error
    body = data[_MARK_SIZE:]
    if body[:1] != _VERSION or not after or data[:_MARK_SIZE] != _mark(body, tenant, where):
        raise _refused("it was not given out for this listing")
    return after


def _mark(body: bytes, tenant: str, where: object) -> bytes:
    listing = repr((tenant, where))
    return hashlib.sha256(listing.encode("utf-8", "backslashreplace") + b"\x00" + body).digest()[:_MARK_SIZE]


def _refused(detail: str) -> EvidenceError:
    return EvidenceError(Reason.MALFORMED_REQUEST, f"the cursor cannot be used: {detail}", structure="cursor")
