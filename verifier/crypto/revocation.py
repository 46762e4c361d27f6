"""Certificate revocation lists (RFC 5280, sections 5 and 6.3), as far as an operator supplies them.

A listed certificate is revoked, however old the list. An absent, stale or partial list proves nothing and
never refuses by itself: that a list must be current is for policy to demand, so it is a note.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from verifier.crypto import der
from verifier.crypto.cert_algorithms import read_signature_algorithm
from verifier.crypto.certificate import Certificate, KeyUsage, SignatureAlgorithm
from verifier.crypto.names import canonical_name, display_name
from verifier.crypto.paths import ValidPath, signature_holds
from verifier.errors import MalformedInputError, RefusedError
from verifier.reasons import Reason
from verifier.refusals import REFUSALS

STRUCTURE: Final = "CertificateList"
MAX_CRL: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class RevocationList:
    """A parsed CRL. Its signature was not looked at: `signed_by` does."""

    issuer_key: bytes
    """Issuer's name, in the form names are compared in."""
    issuer_text: str
    """Issuer's name for people."""
    sha256: bytes
    signed: bytes
    algorithm: SignatureAlgorithm
    signature: bytes
    this_update: datetime
    next_update: datetime | None
    serials: frozenset[int]
    partial: bool
    """It is for a part of the issuer's certificates; what it lists is revoked all the same."""
    unusable: str | None
    """Why it cannot say which certificates of its issuer are revoked, or None."""

    def overdue(self, now: datetime) -> bool:
        """True when a newer list was announced for before `now`."""
        return self.next_update is not None and self.next_update < now

    def signed_by(self, issuer: Certificate) -> bool:
        """True when the issuer's key signed this list and may sign lists."""
        usage = issuer.extensions.key_usage
        if usage is not None and KeyUsage.CRL_SIGN not in usage:
            return False
        return issuer.key is not None and signature_holds(
            issuer.key, self.algorithm, self.signature, self.signed
        )


@functools.lru_cache(maxsize=512)
def parse_crl(data: bytes) -> RevocationList:
    """Parse one DER CRL; remembered, because an operator's lists serve every enrolment.

    Raises:
        MalformedInputError: MALFORMED_STRUCTURE: not a CRL, or larger than `MAX_CRL` bytes.
    """
    if len(data) > MAX_CRL:
        raise MalformedInputError(STRUCTURE, 0, f"{len(data)} bytes; at most {MAX_CRL} are read")
    try:
        parsed = x509.load_der_x509_crl(data)
        this_update, next_update = parsed.last_update_utc, parsed.next_update_utc
        serials = frozenset(entry.serial_number for entry in parsed)
        unusable = _unusable(parsed)
        partial = any(isinstance(one.value, x509.IssuingDistributionPoint) for one in parsed.extensions)
        algorithm, signature = _outer(data)
        issuer = parsed.issuer.public_bytes()
        issuer_key, issuer_text = canonical_name(issuer), display_name(issuer)
    except MalformedInputError as error:
        raise MalformedInputError(STRUCTURE, error.offset or 0, error.detail) from error
    except REFUSALS as error:
        raise MalformedInputError(STRUCTURE, 0, str(error)) from error
    return RevocationList(
        issuer_key=issuer_key,
        issuer_text=issuer_text,
        sha256=hashlib.sha256(data).digest(),
        signed=parsed.tbs_certlist_bytes,
        algorithm=algorithm,
        signature=signature,
        this_update=this_update,
        next_update=next_update,
        serials=serials,
        partial=partial,
        unusable=unusable,
    )


def _outer(data: bytes) -> tuple[SignatureAlgorithm, bytes]:
    outer = der.DerCursor(data, structure=STRUCTURE)
    fields = outer.inside(outer.read(der.SEQUENCE, STRUCTURE))
    fields.read(der.SEQUENCE, "tbsCertList")
    algorithm = read_signature_algorithm(fields.read(der.SEQUENCE, "signatureAlgorithm").encoded)
    return algorithm, fields.read(der.BIT_STRING, "signatureValue").value[1:]


def _unusable(parsed: x509.CertificateRevocationList) -> str | None:
    for extension in parsed.extensions:
        value = extension.value
        if isinstance(value, x509.IssuingDistributionPoint):
            # Its other fields only narrow what the list covers; what it lists is revoked all the same.
            if value.indirect_crl:
                return "it lists certificates of other issuers"
        elif extension.critical:
            return f"critical extension {extension.oid.dotted_string} is not supported"
    return None


class RevocationStatus(enum.StrEnum):
    """What is known of the revocation of a path on which nothing is listed."""

    CURRENT = "current"
    """Every certificate below the anchor is covered by a whole list of its issuer that is not overdue."""
    OVERDUE = "overdue"
    """Each is covered, and a newer list was due for one of them."""
    UNCHECKED = "unchecked"
    """One of them is covered by no list, or only by a partial one, or one from the future."""


@dataclass(frozen=True, slots=True)
class RevocationReport:
    """What the lists at hand say of a path on which nothing is listed."""

    status: RevocationStatus
    notes: tuple[str, ...]
    """Lists that were overdue, from the future or not usable."""


def check_revocation(path: ValidPath, crls: Sequence[RevocationList], now: datetime) -> RevocationReport:
    """Refuse a path on which a certificate is revoked.

    Proven on return: no certificate of the path, its anchor apart, is listed in a list signed with the key of
    its issuer. An anchor is trusted or removed by the operator, never by a list.

    Raises:
        RefusedError: EK_CERTIFICATE_REVOKED.
    """
    notes: list[str] = []
    found: list[RevocationStatus] = []
    for child, issuer in itertools.pairwise(path.certificates):
        lists = [crl for crl in crls if crl.issuer_key == child.issuer_key and _signed_by(crl, issuer)]
        usable = [crl for crl in lists if crl.unusable is None]
        for crl in usable:
            if child.serial in crl.serials:
                detail = f"serial {child.serial:x} was revoked by {issuer.subject_text!r}"
                raise RefusedError(Reason.EK_CERTIFICATE_REVOKED, detail)
        found.append(_status(usable, now))
        name = repr(issuer.subject_text)
        notes += [
            f"a revocation list of {name} was not used: {crl.unusable}" for crl in lists if crl.unusable
        ]
        if found[-1] is not RevocationStatus.CURRENT:
            notes += _freshness(usable, name, now)
    worst = max(found, key=list(RevocationStatus).index, default=RevocationStatus.UNCHECKED)
    return RevocationReport(worst, tuple(notes))


@functools.lru_cache(maxsize=1024)
def _signed_by(crl: RevocationList, issuer: Certificate) -> bool:
    """Remembered: a list may be megabytes to hash, and serves every enrolment."""
    return crl.signed_by(issuer)


def _status(usable: Sequence[RevocationList], now: datetime) -> RevocationStatus:
    whole = [crl for crl in usable if not crl.partial and crl.this_update <= now]
    if not whole:
        return RevocationStatus.UNCHECKED
    overdue = all(crl.overdue(now) for crl in whole)
    return RevocationStatus.OVERDUE if overdue else RevocationStatus.CURRENT


def _freshness(usable: Sequence[RevocationList], name: str, now: datetime) -> list[str]:
    notes = []
    for crl in usable:
        if crl.this_update > now:
            notes.append(
                f"the revocation list of {name} is dated {crl.this_update.isoformat()}, in the future"
            )
        elif crl.overdue(now) and crl.next_update is not None:
            notes.append(f"the revocation list of {name} is stale since {crl.next_update.isoformat()}")
    return notes
