"""Endorsement key certificates: from bytes a TPM handed out to a key an operator's anchors vouch for.

TCG EK Credential Profile for TPM Family 2.0, section 3.2; RFC 5280, section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.endorsement import endorse, require_same_key, usable_key
from verifier.crypto.keys import PublicKey
from verifier.crypto.profile import EK_CERTIFICATE_PURPOSE, EkProfile, profile_problem, read_profile
from verifier.crypto.revocation import RevocationStatus
from verifier.errors import RefusedError
from verifier.reasons import Reason
from verifier.tcg.public import Public

__all__ = ["EkProfile", "TrustAnchors", "ValidatedEk", "validate_ek"]

_PURPOSES: Final = frozenset({EK_CERTIFICATE_PURPOSE})
_SEAL: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedEk:
    """An endorsement key with a path to a trust anchor. Only `validate_ek` makes one.

    Attributes:
        certificate: DER, without NV padding.
        chain: DER of the path, `certificate` first, the trust anchor last.
        fingerprint: SHA-256 of the key's canonical SubjectPublicKeyInfo, as `keys.fingerprint` of its public.
        issuer: issuer's name for people.
        anchor: SHA-256 of the trust anchor.
        expires_at: when the first certificate of the path expires.
        profile: what the certificate says of its TPM.
        key: the public key.
        revocation: what the revocation lists at hand say of the path.
    """

    certificate: bytes
    chain: tuple[bytes, ...]
    fingerprint: bytes
    issuer: str
    anchor: bytes
    expires_at: datetime
    profile: EkProfile
    key: PublicKey
    revocation: RevocationStatus
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise TypeError("a ValidatedEk comes from validate_ek alone")


def validate_ek(
    certificate: bytes,
    *,
    intermediates: Sequence[bytes] = (),
    anchors: TrustAnchors,
    crls: Sequence[bytes] = (),
    ek_public: Public | None,
    now: datetime,
) -> ValidatedEk:
    """Validate an EK certificate.

    Proven on return: a CA that the operator trusts, or one it empowered, signed this certificate; it and
    every CA above it are in their dates, unrevoked by the lists given, and strong enough; its usages do not
    exclude an endorsement key; and when `ek_public` is given, it certifies that very key.

    Not proven: that the sender holds the private key (credential activation proves that), that the TPM is
    genuine beyond the issuer's word, that it is a chip, or that the certificate is free of what
    `profile.notes` lists.

    Args:
        certificate: DER as read from NV, padding allowed behind it.
        intermediates: DER of CA certificates that may help; untrusted, unreadable ones are passed over.
        anchors: what is trusted.
        crls: DER of revocation lists the operator supplies.
        ek_public: the TPM's endorsement key, or None when only the certificate is at hand.
        now: aware time at which dates are judged.

    Raises:
        MalformedInputError: EK_CERTIFICATE_MALFORMED, with an offset; MALFORMED_STRUCTURE for a CRL.
        RefusedError: EK_CERTIFICATE_UNTRUSTED, _EXPIRED, _REVOKED, _PROFILE (weak keys too) or _KEY_MISMATCH.
    """
    endorsement = endorse(
        certificate, intermediates=intermediates, anchors=anchors, crls=crls, now=now, purposes=_PURPOSES
    )
    leaf = endorsement.path.leaf
    problem = profile_problem(leaf)
    if problem is not None:
        raise RefusedError(Reason.EK_CERTIFICATE_PROFILE, f"not an EK certificate: {problem}")
    key = usable_key(leaf)
    require_same_key(leaf, ek_public, "endorsement key")
    return ValidatedEk(
        certificate=leaf.der,
        chain=endorsement.chain,
        fingerprint=leaf.key_fingerprint,
        issuer=leaf.issuer_text,
        anchor=endorsement.path.anchor.fingerprint,
        expires_at=endorsement.expires_at,
        profile=read_profile(leaf, key, endorsement.notes),
        key=key,
        revocation=endorsement.revocation,
        seal=_SEAL,
    )
