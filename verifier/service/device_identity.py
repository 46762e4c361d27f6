"""Device identities (IDevID, IAK) beside the keys that attest: what ties them to this TPM, or that nothing does. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.device_keys import EndorsedKey, KeyKind, validate_key_certificate
from verifier.errors import EvidenceError

EK_CERTIFICATE_DIGEST: Final = "2.23.133.12.1"
"""Assigner of a permanent identifier that is the SHA-256 of the EK certificate, in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """A certified identity of the machine, tied to its TPM.

    Attributes:
        bound_by: `attestation-key`: it certifies the very AK that quotes. `ek-certificate`: it names the EK
            certificate that was validated in this enrolment.
    """

    key: EndorsedKey
    bound_by: str

    def as_mapping(self) -> dict[str, object]:
        """JSON-ready."""
        profile = self.key.profile
        return {
            "kind": self.key.kind.value,
            "bound_by": self.bound_by,
            "issuer": self.key.issuer,
            "manufacturer": profile.manufacturer,
            "model": profile.model,
            "version": profile.version,
            "serial": profile.hardware_serial,
            "permanent_identifier": profile.permanent_identifier,
            "certificate_sha256": hashlib.sha256(self.key.certificate).hexdigest(),
            "expires_at": self.key.expires_at.isoformat(),
        }


def bind_devices(
    certificates: Sequence[bytes],
    *,
    issuers: Sequence[bytes],
    anchors: TrustAnchors,
    crls: Sequence[bytes],
    ak: EndorsedKey | None,
    ek_certificate: bytes | None,
    now: datetime,
) -> tuple[tuple[DeviceIdentity, ...], tuple[str, ...]]:
    """Identities among these certificates that belong to this TPM, and remarks on those that do not.

    A certificate can be copied from another machine, so one that nothing ties to this TPM is not believed, however
    good its issuer is. Nothing here refuses: identities are an addition to what endorses the TPM.

    Args:
        certificates: DER of IAK and IDevID certificates, as the machine sent them.
        issuers: CA certificates that may help.
        anchors: trusted for devices.
        crls: DER of revocation lists.
        ak: the AK's own certificate, where it was validated as an IAK.
        ek_certificate: DER of the EK certificate, where it was validated.
        now: aware time.
    """
    if not len(anchors):
        return (), ()
    found: list[DeviceIdentity] = []
    remarks: list[str] = []
    for number, certificate in enumerate(certificates):
        key = _validate(certificate, issuers=issuers, anchors=anchors, crls=crls, now=now)
        if isinstance(key, EvidenceError):
            remarks.append(f"device certificate {number} is not believed: {key.detail}")
            continue
        bound_by = _binding(key, ak, ek_certificate)
        if bound_by is None:
            remarks.append(f"device certificate {number} is not believed: nothing ties it to this TPM")
        else:
            found.append(DeviceIdentity(key=key, bound_by=bound_by))
    return tuple(found), tuple(remarks)


def _validate(
    certificate: bytes,
    *,
    issuers: Sequence[bytes],
    anchors: TrustAnchors,
    crls: Sequence[bytes],
    now: datetime,
) -> EndorsedKey | EvidenceError:
    """As an IAK, else as an IDevID: what kind it is, its content says."""
    problem: EvidenceError | None = None
    for kind in (KeyKind.IAK, KeyKind.IDEVID):
        try:
            return validate_key_certificate(
                certificate,
                kind=kind,
                intermediates=issuers,
                anchors=anchors,
                crls=crls,
                public=None,
                now=now,
            )
        except EvidenceError as error:
            problem = error
    if problem is None:
        raise AssertionError("there are two kinds")
    return problem


def _binding(key: EndorsedKey, ak: EndorsedKey | None, ek_certificate: bytes | None) -> str | None:
    if ak is not None and ak.kind is KeyKind.IAK and ak.fingerprint == key.fingerprint:
        return "attestation-key"
    profile = key.profile
    if (
        ek_certificate is not None
        and profile.identifier_assigner == EK_CERTIFICATE_DIGEST
        and profile.permanent_identifier is not None
        and profile.permanent_identifier.lower() == hashlib.sha256(ek_certificate).hexdigest()
    ):
        return "ek-certificate"
    return None
