"""What validating any certificate of a TPM's key has in common: from bytes to a path, its notes and its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from verifier.crypto import keys
from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.cert_reader import parse_authority, parse_certificate
from verifier.crypto.certificate import Certificate
from verifier.crypto.der import malformed
from verifier.crypto.keys import PublicKey
from verifier.crypto.nv_content import unwrap
from verifier.crypto.paths import ValidPath, find_path
from verifier.crypto.revocation import RevocationStatus, check_revocation, parse_crl
from verifier.crypto.weak_keys import weakness
from verifier.errors import EvidenceError, RefusedError
from verifier.reasons import Reason
from verifier.tcg.public import Public

MAX_INTERMEDIATES: Final = 32
"""NV indices 0x01c00100 to 0x01c001ff hold a chain in pieces; a longer one is nobody's chain."""


@dataclass(frozen=True, slots=True)
class Endorsement:
    """A path that holds for a certificate, and what a person should know of it."""

    path: ValidPath
    revocation: RevocationStatus
    notes: tuple[str, ...]

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER of the path, leaf first, trust anchor last."""
        return tuple(certificate.der for certificate in self.path.certificates)

    @property
    def expires_at(self) -> datetime:
        """When the first certificate of the path expires."""
        return min(certificate.not_after for certificate in self.path.certificates)


def endorse(
    certificate: bytes,
    *,
    intermediates: Sequence[bytes],
    anchors: TrustAnchors,
    crls: Sequence[bytes],
    now: datetime,
    purposes: frozenset[str] | None,
) -> Endorsement:
    """Find a path for a certificate as a TPM hands it out, and check it against revocation lists.

    Proven on return: what `find_path` and `check_revocation` prove. Not proven: that the certificate is fit
    for any purpose.

    Args:
        certificate: DER, NV padding allowed behind it.
        intermediates: DER of CA certificates that may help; unreadable ones are passed over and noted.
        anchors: what is trusted.
        crls: DER of revocation lists the operator supplies.
        now: aware time at which dates are judged.
        purposes: as for `find_path`.

    Raises:
        MalformedInputError: the certificate, or a revocation list, cannot be read.
        RefusedError: no path, out of its dates, or revoked.
    """
    if len(intermediates) > MAX_INTERMEDIATES:
        raise malformed(
            f"{len(intermediates)} intermediates; at most {MAX_INTERMEDIATES} are read", 0, "chain"
        )
    content = unwrap(certificate)
    leaf = parse_certificate(content.der)
    helpers, notes = _read_intermediates(intermediates)
    path = find_path(leaf, intermediates=helpers, anchors=anchors, now=now, purposes=purposes)
    revocation = check_revocation(path, [parse_crl(crl) for crl in crls], now)
    notes += [*path.notes, *revocation.notes]
    notes += content.notes
    if leaf.lenient_because is not None:
        notes.append(f"not strictly X.509, read leniently: {leaf.lenient_because}")
    return Endorsement(path, revocation.status, tuple(notes))


def _read_intermediates(intermediates: Sequence[bytes]) -> tuple[list[Certificate], list[str]]:
    """A damaged helper must not shut out a TPM whose path does not need it; it is noted."""
    read: list[Certificate] = []
    notes: list[str] = []
    for position, data in enumerate(intermediates):
        try:
            read.append(parse_authority(unwrap(data).der))
        except EvidenceError as error:
            notes.append(f"intermediate {position} was passed over: {error}")
    return read, notes


def usable_key(leaf: Certificate) -> PublicKey:
    """The certified key, if this verifier can use it and it is strong enough.

    Raises:
        RefusedError: EK_CERTIFICATE_PROFILE.
    """
    if leaf.key is None:
        detail = f"keys of algorithm {leaf.key_algorithm} are not supported"
        raise RefusedError(Reason.EK_CERTIFICATE_PROFILE, detail)
    weak = weakness(leaf.key)
    if weak is not None:
        raise RefusedError(Reason.EK_CERTIFICATE_PROFILE, f"the certificate is for {weak}")
    return leaf.key


def require_same_key(leaf: Certificate, public: Public | None, what: str) -> None:
    """Refuse a certificate for another key than the TPM's; `None` where the TPM's key is not at hand.

    Raises:
        RefusedError: EK_CERTIFICATE_KEY_MISMATCH.
    """
    if public is not None and keys.fingerprint(public) != leaf.key_fingerprint:
        detail = f"the certificate is for another key than the TPM's {what}"
        raise RefusedError(Reason.EK_CERTIFICATE_KEY_MISMATCH, detail)
