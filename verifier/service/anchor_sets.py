"""Trust anchors as they are stored, and as they are used: immutable sets, joined by what they may vouch for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from verifier.crypto.anchors import TrustAnchors
from verifier.errors import EvidenceError, StoredDataDamaged
from verifier.ports_trust import AnchorPurpose

MAX_SET: Final = 48 * 1024 * 1024
"""Bytes of a stored set: every CA of every maker of TPMs, with all their revocation lists, is a tenth of it."""


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The stored form. Both lists are ordered by digest, so that one set has one form and one name."""

    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Content)


@dataclass(frozen=True, slots=True)
class AnchorSet:
    """Anchors and revocation lists that were imported together."""

    anchors: TrustAnchors = field(default_factory=TrustAnchors)
    crls: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(len(self.anchors) or self.crls)

    def encode(self) -> tuple[bytes, bytes]:
        """SHA-256 and content (MessagePack), the same for the same set however it was put together."""
        content = _encoder.encode(
            _Content(
                tuple(anchor.der for anchor in self.anchors),  # in the order of their fingerprints
                tuple(sorted(set(self.crls), key=lambda crl: hashlib.sha256(crl).digest())),
            )
        )
        return hashlib.sha256(content).digest(), content

    @classmethod
    def decode(cls, content: bytes) -> AnchorSet:
        """The reverse; raises `StoredDataDamaged`. An anchor this version refuses would be a silent change of trust."""
        try:
            read = _decoder.decode(content)
            return cls(TrustAnchors.from_der(read.certificates), read.crls)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, EvidenceError) as error:
            raise StoredDataDamaged(f"a stored anchor set cannot be read: {error}") from error

    def without(self, fingerprint: bytes) -> AnchorSet:
        """The set but for one anchor."""
        return AnchorSet(
            TrustAnchors(anchor for anchor in self.anchors if anchor.fingerprint != fingerprint), self.crls
        )


@dataclass(frozen=True, slots=True)
class TrustedAnchors:
    """All that one tenant trusts at a moment, by purpose. The lists serve every purpose: they only ever refuse."""

    by_purpose: Mapping[AnchorPurpose, TrustAnchors]
    crls: tuple[bytes, ...] = ()

    def anchors(self, purpose: AnchorPurpose) -> TrustAnchors:
        """Anchors for one purpose; an empty set where nothing is trusted for it."""
        return self.by_purpose.get(purpose, _NOTHING)

    def count(self) -> int:
        """How many anchors there are, each counted once for a purpose."""
        return sum(len(anchors) for anchors in self.by_purpose.values())


_NOTHING: Final = TrustAnchors()


def join(sets: Iterable[tuple[AnchorSet, Iterable[AnchorPurpose]]]) -> TrustedAnchors:
    """Everything in these sets, each for its purposes."""
    parts: dict[AnchorPurpose, list[TrustAnchors]] = {}
    crls: dict[bytes, None] = {}
    for one, purposes in sets:
        crls |= dict.fromkeys(one.crls)
        for purpose in purposes:
            parts.setdefault(purpose, []).append(one.anchors)
    joined = {
        purpose: TrustAnchors(anchor for anchors in several for anchor in anchors)
        for purpose, several in parts.items()
    }
    return TrustedAnchors(joined, tuple(crls))
