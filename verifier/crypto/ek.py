"""Endorsement key certificates: from bytes a TPM handed out to a key an operator's anchors vouch for.

TCG EK Credential Profile for TPM Family 2.0, section 3.2; RFC 5280, section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from verifier.crypto import keys
from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.cert_reader import parse_authority, parse_certificate
from verifier.crypto.certificate import Certificate
from verifier.crypto.der import malformed, trim_padding
from verifier.crypto.keys import PublicKey
from verifier.crypto.paths import ValidPath, find_path
from verifier.crypto.profile import EK_CERTIFICATE_PURPOSE, EkProfile, profile_problem, read_profile
from verifier.crypto.revocation import check_revocation, parse_crl
from verifier.crypto.weak_keys import weakness
from verifier.errors import EvidenceError, RefusedError
from verifier.reasons import Reason
from verifier.tcg.public import Public

__all__ = ["EkProfile", "TrustAnchors", "ValidatedEk", "validate_ek"]

MAX_INTERMEDIATES: Final = 32
"""NV indices 0x01c00100 to 0x01c001ff hold a chain in pieces; a longer one is nobody's chain."""
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
    """

    certificate: bytes
    chain: tuple[bytes, ...]
    fingerprint: bytes
    issuer: str
    anchor: bytes
    expires_at: datetime
    profile: EkProfile
    key: PublicKey
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
    if len(intermediates) > MAX_INTERMEDIATES:
        raise malformed(
            f"{len(intermediates)} intermediates; at most {MAX_INTERMEDIATES} are read", 0, "chain"
        )
    der, padding = trim_padding(certificate)
    leaf = parse_certificate(der)
    helpers, notes = _read_intermediates(intermediates)
    path = find_path(leaf, intermediates=helpers, anchors=anchors, now=now, purposes=_PURPOSES)
    notes += [*path.notes, *check_revocation(path, [parse_crl(crl) for crl in crls], now)]
    key = _judge_key(leaf)
    if ek_public is not None and keys.fingerprint(ek_public) != leaf.key_fingerprint:
        detail = "the certificate is for another key than the TPM's endorsement key"
        raise RefusedError(Reason.EK_CERTIFICATE_KEY_MISMATCH, detail)
    if padding:
        notes.append(f"{padding} bytes of padding behind the certificate")
    return _seal(path, key, read_profile(leaf, key, notes))


def _read_intermediates(intermediates: Sequence[bytes]) -> tuple[list[Certificate], list[str]]:
    """A damaged helper must not shut out a TPM whose path does not need it; it is noted."""
    read: list[Certificate] = []
    notes: list[str] = []
    for position, data in enumerate(intermediates):
        try:
            read.append(parse_authority(trim_padding(data)[0]))
        except EvidenceError as error:
            notes.append(f"intermediate {position} was passed over: {error}")
    return read, notes


def _judge_key(leaf: Certificate) -> PublicKey:
    problem = profile_problem(leaf)
    if problem is not None:
        raise RefusedError(Reason.EK_CERTIFICATE_PROFILE, f"not an EK certificate: {problem}")
    if leaf.key is None:
        detail = f"keys of algorithm {leaf.key_algorithm} are not supported"
        raise RefusedError(Reason.EK_CERTIFICATE_PROFILE, detail)
    weak = weakness(leaf.key)
    if weak is not None:
        raise RefusedError(Reason.EK_CERTIFICATE_PROFILE, f"the endorsement key is {weak}")
    return leaf.key


def _seal(path: ValidPath, key: PublicKey, profile: EkProfile) -> ValidatedEk:
    return ValidatedEk(
        certificate=path.leaf.der,
        chain=tuple(certificate.der for certificate in path.certificates),
        fingerprint=path.leaf.key_fingerprint,
        issuer=path.leaf.issuer_text,
        anchor=path.anchor.fingerprint,
        expires_at=min(certificate.not_after for certificate in path.certificates),
        profile=profile,
        key=key,
        seal=_SEAL,
    )
