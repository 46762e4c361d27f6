"""Certificates of signing keys in a TPM: AK certificates of clouds and CAs, IAK and IDevID of device makers.

TCG TPM 2.0 Keys for Device Identity and Attestation, section 8; TCG OID Registry; WebAuthn section 8.3.1 for
what Microsoft's AIK CAs write; Google and Azure as found in their certificates.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, assert_never

from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.certificate import (
    OID_ANY_EXTENDED_KEY_USAGE,
    OID_SUBJECT_ALT_NAME,
    Certificate,
    KeyUsage,
)
from verifier.crypto.device_profile import (
    AK_CERTIFICATE_PURPOSE,
    VERIFIED_FIXED,
    VERIFIED_RESIDENCY,
    VERIFIED_RESTRICTED,
    DeviceKeyProfile,
    read_device_profile,
)
from verifier.crypto.endorsement import endorse, require_same_key, usable_key
from verifier.crypto.keys import PublicKey
from verifier.crypto.profile import EK_CERTIFICATE_PURPOSE, usage_text
from verifier.errors import RefusedError
from verifier.reasons import Reason
from verifier.tcg.public import Public

__all__ = ["DeviceKeyProfile", "EndorsedKey", "KeyKind", "validate_key_certificate"]

_CAPABILITIES: Final = frozenset({VERIFIED_RESIDENCY, VERIFIED_FIXED, VERIFIED_RESTRICTED})
_SEAL: Final = object()


class KeyKind(enum.StrEnum):
    """What a certified signing key is used as."""

    AK = "ak"
    """Attestation key, endorsed by a cloud or a privacy CA."""
    IAK = "iak"
    """Initial attestation key, endorsed by the device's maker: a restricted signing key."""
    IDEVID = "idevid"
    """Initial device identity, endorsed by the device's maker: it signs anything, so it never quotes."""


_CA_PURPOSES: Final[dict[KeyKind, frozenset[str] | None]] = {
    # Google's CA is limited to EK certificates and issues AK certificates all the same.
    KeyKind.AK: frozenset({AK_CERTIFICATE_PURPOSE, EK_CERTIFICATE_PURPOSE, *_CAPABILITIES}),
    KeyKind.IAK: frozenset({AK_CERTIFICATE_PURPOSE, *_CAPABILITIES}),
    KeyKind.IDEVID: None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsedKey:
    """A signing key with a path to a trust anchor. Only `validate_key_certificate` makes one.

    Attributes:
        kind: what it was validated as.
        certificate: DER, without NV padding.
        chain: DER of the path, `certificate` first, the trust anchor last.
        fingerprint: SHA-256 of the key's canonical SubjectPublicKeyInfo, as `keys.fingerprint` of its public.
        issuer: issuer's name for people.
        anchor: SHA-256 of the trust anchor.
        expires_at: when the first certificate of the path expires.
        profile: what the certificate says of its device.
        key: the public key.
    """

    kind: KeyKind
    certificate: bytes
    chain: tuple[bytes, ...]
    fingerprint: bytes
    issuer: str
    anchor: bytes
    expires_at: datetime
    profile: DeviceKeyProfile
    key: PublicKey
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise TypeError("an EndorsedKey comes from validate_key_certificate alone")


def validate_key_certificate(
    certificate: bytes,
    *,
    kind: KeyKind,
    intermediates: Sequence[bytes] = (),
    anchors: TrustAnchors,
    crls: Sequence[bytes] = (),
    public: Public | None,
    now: datetime,
) -> EndorsedKey:
    """Validate the certificate of a signing key.

    Proven on return: a CA trusted for this signed the certificate, within all dates and lists given; its
    usages allow what `kind` does; and when `public` is given, it certifies that very key.

    Not proven: that the sender holds the key (a quote or a signature over a fresh nonce proves that), nor that
    its attributes are those of the public area at hand: a certificate covers a key, so that an area with the
    same key and better attributes fits it too. That an AK or IAK is restricted is the issuer's word
    (tcg-kp-AIKCertificate or verifiedTPMRestricted); Google's certificates do not say it, and trusting their
    anchor for AKs takes its place. Keep these anchors apart from those of EKs.

    Args:
        certificate: DER as read from NV, padding allowed behind it.
        kind: what the key shall be used as.
        intermediates: DER of CA certificates that may help; untrusted, unreadable ones are passed over.
        anchors: what is trusted for keys of this kind.
        crls: DER of revocation lists the operator supplies.
        public: the TPM's public area of the key, or None when only the certificate is at hand.
        now: aware time at which dates are judged.

    Raises:
        MalformedInputError: EK_CERTIFICATE_MALFORMED, with an offset; MALFORMED_STRUCTURE for a CRL.
        RefusedError: EK_CERTIFICATE_UNTRUSTED, _EXPIRED, _REVOKED, _PROFILE (weak keys too) or _KEY_MISMATCH;
            these codes serve for every certificate that endorses a TPM's key.
    """
    endorsement = endorse(
        certificate,
        intermediates=intermediates,
        anchors=anchors,
        crls=crls,
        now=now,
        purposes=_CA_PURPOSES[kind],
    )
    leaf = endorsement.path.leaf
    profile = read_device_profile(leaf, endorsement.notes)
    problem = _problem(leaf, kind) or _unstated(profile, kind)
    if problem is not None:
        raise RefusedError(Reason.EK_CERTIFICATE_PROFILE, f"not an {kind.name} certificate: {problem}")
    key = usable_key(leaf)
    require_same_key(leaf, public, kind.name)
    return EndorsedKey(
        kind=kind,
        certificate=leaf.der,
        chain=endorsement.chain,
        fingerprint=leaf.key_fingerprint,
        issuer=leaf.issuer_text,
        anchor=endorsement.path.anchor.fingerprint,
        expires_at=endorsement.expires_at,
        profile=profile,
        key=key,
        seal=_SEAL,
    )


def _problem(certificate: Certificate, kind: KeyKind) -> str | None:
    extensions = certificate.extensions
    if extensions.basic_constraints is not None and extensions.basic_constraints.ca:
        return "it is a CA certificate"
    if unenforced := certificate.unenforced():
        return f"extension {', '.join(unenforced)} cannot be enforced"
    usage = extensions.key_usage
    if usage is not None and KeyUsage.DIGITAL_SIGNATURE not in usage:
        return f"its key usage ({usage_text(usage)}) does not allow signatures"
    names = extensions.alternative_names
    if OID_SUBJECT_ALT_NAME in extensions.critical and not (
        names is not None and (names.has_directory or names.other_names)
    ):
        return "its critical subject alternative name holds neither a directory name nor a device's"
    return _purpose_problem(certificate, kind)


def _unstated(profile: DeviceKeyProfile, kind: KeyKind) -> str | None:
    """What the certificate must say and does not: a CA that is trusted for AKs may certify servers too."""
    match kind:
        case KeyKind.AK:
            if profile.restricted or (profile.gce is not None and profile.gce.production is not False):
                return None
            return "nothing in it says that the key is an attestation key"
        case KeyKind.IAK:
            return None if profile.restricted else "nothing in it says that the key is restricted"
        case KeyKind.IDEVID:
            if profile.restricted:
                return "its key is restricted to what its TPM makes, which a device identity is not"
            return None if profile.resident else "nothing in it says that the key is in a TPM"
        case _:
            assert_never(kind)


def _purpose_problem(certificate: Certificate, kind: KeyKind) -> str | None:
    """Purposes that are absent exclude nothing (Google writes none); those that are there must allow `kind`."""
    purposes = certificate.extensions.extended_key_usage
    if purposes is None or OID_ANY_EXTENDED_KEY_USAGE in purposes:
        return None
    listed = set(purposes)
    text = f"it is for other purposes ({', '.join(purposes)})"
    match kind:
        case KeyKind.AK:
            # Google's older AK certificates say tcg-kp-EKCertificate; their key usage excludes an EK.
            signing = certificate.extensions.key_usage == KeyUsage.DIGITAL_SIGNATURE
            fits = listed & {AK_CERTIFICATE_PURPOSE, VERIFIED_RESTRICTED} or (
                signing and EK_CERTIFICATE_PURPOSE in listed
            )
            return None if fits else text
        case KeyKind.IAK:
            return None if listed & {AK_CERTIFICATE_PURPOSE, VERIFIED_RESTRICTED} else text
        case KeyKind.IDEVID:
            # An endorsement key decrypts, an attestation key is restricted: neither is a device identity.
            return text if listed & {AK_CERTIFICATE_PURPOSE, EK_CERTIFICATE_PURPOSE} else None
        case _:
            assert_never(kind)
