"""Nonces that nobody has to remember until they are spent (docs/adr/0004-stateless-nonces.md).

Layout, 32 bytes: expiry (u32, seconds since 1970, big-endian) || 4-byte mark of the past || 4 random bytes || 4-byte
origin mark || 16-byte tag. The tag is HMAC-SHA256 over the attester's id and everything before it, the origin mark is
an HMAC without the id; both truncated. The tag alone decides; the origin mark only tells the two failures apart. The
mark of the past names what was known of the attester when the nonce was issued.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Final

from verifier.crypto.mac import Mac
from verifier.errors import RefusedError
from verifier.ports import Random
from verifier.reasons import Reason

NONCE_SIZE: Final = 32
_EXPIRY_SIZE: Final = 4
MARK_SIZE: Final = 4
"""Bytes of the mark that tells one state of an attester's past from another."""
_RANDOM_SIZE: Final = 4
_MARK_SIZE: Final = 4
_TAG_SIZE: Final = 16
_HEAD_SIZE: Final = _EXPIRY_SIZE + MARK_SIZE + _RANDOM_SIZE
_BODY_SIZE: Final = _HEAD_SIZE + _MARK_SIZE
_MARK_LABEL: Final = b"vtpm-attest nonce origin v1\x00"
_TAG_LABEL: Final = b"vtpm-attest nonce tag v1\x00"


def spent_as(nonce: bytes) -> bytes:
    """What a spent nonce is known by: its digest, behind its expiry.

    So those that are spent at one time lie together in the store, instead of anywhere among a million.
    """
    return nonce[:_EXPIRY_SIZE] + hashlib.sha256(nonce).digest()[:-_EXPIRY_SIZE]


class Nonces:
    """Issues and checks nonces. Replicas with the same key accept each other's.

    Single use is not enforced here: the store spends the nonce in the transaction that stores the verdict.
    """

    def __init__(self, key: bytes, random: Random) -> None:
        self._marks, self._tags = Mac(key, _MARK_LABEL), Mac(key, _TAG_LABEL)
        self._random = random

    def issue(
        self, attester_id: str, now: datetime, lifetime: timedelta, past: bytes = bytes(MARK_SIZE)
    ) -> tuple[bytes, datetime]:
        """A nonce for this attester, whose past has the mark `past`, and when it expires. Writes nothing anywhere."""
        expiry = int((now + lifetime).timestamp())
        head = expiry.to_bytes(_EXPIRY_SIZE, "big") + past + self._random.bytes(_RANDOM_SIZE)
        body = head + self._mark(head)
        return body + self._tag(attester_id, body), datetime.fromtimestamp(expiry, UTC)

    def check(self, nonce: bytes, attester_id: str, now: datetime) -> datetime:
        """When the nonce expires, if it was issued to this attester and still lives.

        Proves that this service issued exactly this nonce to exactly this attester. Does not prove that it
        was never used.

        Raises:
            RefusedError: `nonce-foreign` (issued to another attester), `nonce-unknown` (issued by nobody
                with this service's key), `nonce-expired`.
        """
        body, tag = nonce[:_BODY_SIZE], nonce[_BODY_SIZE:]
        if not hmac.compare_digest(tag, self._tag(attester_id, body)):
            raise self._not_ours(body)
        expires = datetime.fromtimestamp(int.from_bytes(body[:_EXPIRY_SIZE], "big"), UTC)
        if now >= expires:
            raise RefusedError(Reason.NONCE_EXPIRED, f"the nonce expired at {expires:%Y-%m-%dT%H:%M:%SZ}")
        return expires

    @staticmethod
    def issued_at(nonce: bytes, past: bytes) -> bool:
        """Whether a checked nonce was issued when the attester's past had this mark.

        Where it was not, other evidence of the attester was judged since, and this one may be older than that.
        """
        return nonce[_EXPIRY_SIZE : _EXPIRY_SIZE + MARK_SIZE] == past

    def _not_ours(self, body: bytes) -> RefusedError:
        head, mark = body[:_HEAD_SIZE], body[_HEAD_SIZE:]
        if hmac.compare_digest(mark, self._mark(head)):
            return RefusedError(Reason.NONCE_FOREIGN, "the nonce was issued to another attester")
        return RefusedError(Reason.NONCE_UNKNOWN, "the nonce was not issued by this verifier")

    def _mark(self, head: bytes) -> bytes:
        return self._marks.digest(head)[:_MARK_SIZE]

    def _tag(self, attester_id: str, body: bytes) -> bytes:
        # `body` has a fixed length, so the id behind it cannot be read as part of it.
        return self._tags.digest(body + attester_id.encode())[:_TAG_SIZE]
