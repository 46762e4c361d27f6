"""X.509 path building and validation (RFC 5280, section 6), for EK and AK certificates.

Built here and not on `cryptography.x509.verification`, because one validator must judge certificates of both
readers, end at an anchor that is not self-signed, compare names as RFC 5280 does, and say which certificate
failed and why.
"""

from __future__ import annotations

import enum
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.certificate import (
    OID_ANY_EXTENDED_KEY_USAGE,
    Certificate,
    KeyUsage,
    Scheme,
    SignatureAlgorithm,
)
from verifier.crypto.keys import PublicKey
from verifier.crypto.weak_keys import weakness
from verifier.errors import RefusedError
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg

MAX_PATH: Final = 8
"""Certificates of a path, leaf and anchor included."""
MAX_SIGNATURE_CHECKS: Final = 100
MAX_STEPS: Final = 1000
"""Candidates looked at while building; hostile intermediates of one name multiply."""

_HASHES: Final[dict[HashAlg, hashes.HashAlgorithm]] = {
    HashAlg.SHA1: hashes.SHA1(),  # noqa: S303 - only where _link_problem allows it
    HashAlg.SHA256: hashes.SHA256(),
    HashAlg.SHA384: hashes.SHA384(),
    HashAlg.SHA512: hashes.SHA512(),
}

SHA1_LEAVES_BEFORE: Final = datetime(2019, 1, 1, tzinfo=UTC)
"""An end certificate issued earlier may carry a SHA-1 signature; see docs/ek-certificates.md."""


class Obstacle(enum.IntEnum):
    """Why a path was not accepted, in order of how much it says: the highest of all tried is reported."""

    NO_ISSUER = 0
    LIMIT = 1
    SIGNATURE = 2
    ALGORITHM = 3
    AUTHORITY = 4
    DATES = 5


class PathError(RefusedError):
    """No acceptable path to a trust anchor.

    Attributes:
        obstacle: the most telling failure among the candidates tried.
    """

    def __init__(self, obstacle: Obstacle, detail: str) -> None:
        self.obstacle = obstacle
        expired = obstacle is Obstacle.DATES
        super().__init__(
            Reason.EK_CERTIFICATE_EXPIRED if expired else Reason.EK_CERTIFICATE_UNTRUSTED, detail
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one candidate path was not accepted."""

    obstacle: Obstacle
    detail: str


@dataclass(frozen=True, slots=True)
class ValidPath:
    """Leaf first, trust anchor last. Every signature, date and authority on it was checked."""

    certificates: tuple[Certificate, ...]
    notes: tuple[str, ...]

    @property
    def leaf(self) -> Certificate:
        """The end certificate."""
        return self.certificates[0]

    @property
    def anchor(self) -> Certificate:
        """The trust anchor the path ends at."""
        return self.certificates[-1]


def find_path(
    leaf: Certificate,
    *,
    intermediates: Sequence[Certificate],
    anchors: TrustAnchors,
    now: datetime,
    purposes: frozenset[str] | None,
) -> ValidPath:
    """Find a path from a certificate to a trust anchor that holds at `now`.

    Proven: every certificate of the path is signed with the key of the next, in its dates, and every one but
    the leaf is a CA that may sign such a path. Not proven: that the leaf is fit for its purpose (its own
    extensions are the caller's to judge), or unrevoked.

    Args:
        leaf: the end certificate.
        intermediates: unproven CA certificates that may help.
        anchors: what is trusted.
        now: aware time at which all dates are judged.
        purposes: extended key usages (dotted OIDs); a CA that lists usages must list one of these.
            None where the purpose is open (a device identity).

    Raises:
        RefusedError: EK_CERTIFICATE_EXPIRED when only dates are in the way, else EK_CERTIFICATE_UNTRUSTED.
    """
    search = _Search(tuple(intermediates), anchors, now, purposes)
    found = search.extend((leaf,))
    if found is not None:
        return ValidPath(found, _notes(found))
    if search.worst is None:
        raise PathError(Obstacle.NO_ISSUER, f"no trust anchor for issuer {leaf.issuer_text!r}")
    raise PathError(search.worst.obstacle, search.worst.detail)


def _notes(path: tuple[Certificate, ...]) -> tuple[str, ...]:
    notes = []
    for child, issuer in itertools.pairwise(path):
        claimed, actual = child.extensions.authority_key_id, issuer.extensions.subject_key_id
        if claimed is not None and actual is not None and claimed != actual:
            notes.append(f"{_who(child)} names another key identifier than its issuer has")
    if path[0].algorithm.hash_alg is HashAlg.SHA1:
        notes.append("signed with SHA-1, before 2019")
    return tuple(notes)


def _who(certificate: Certificate) -> str:
    subject = certificate.subject_text
    return f"certificate {subject!r}" if subject else f"certificate with serial {certificate.serial:x}"


@dataclass(slots=True)
class _Search:
    """Depth-first search with a budget. Mutable, lives for one call."""

    intermediates: tuple[Certificate, ...]
    anchors: TrustAnchors
    now: datetime
    purposes: frozenset[str] | None
    worst: Problem | None = None
    steps: int = 0
    checks: int = 0
    signatures: dict[tuple[bytes, bytes], Problem | None] = field(default_factory=dict)

    def extend(self, path: tuple[Certificate, ...]) -> tuple[Certificate, ...] | None:
        """The first acceptable path that begins like this, or None with `worst` telling why."""
        tail = path[-1]
        for anchor in _by_key_identifier(tail, self.anchors.named(tail.issuer_key)):
            self._spend_step()
            if self._accepts((*path, anchor)):
                return (*path, anchor)
        if len(path) + 1 >= MAX_PATH:
            self._remember(Problem(Obstacle.LIMIT, f"more than {MAX_PATH} certificates up to an anchor"))
            return None
        for issuer in _by_key_identifier(tail, self._candidates(path)):
            self._spend_step()
            found = self.extend((*path, issuer))
            if found is not None:
                return found
        return None

    def _candidates(self, path: tuple[Certificate, ...]) -> Iterator[Certificate]:
        wanted = path[-1].issuer_key
        for candidate in self.intermediates:
            if candidate not in path and candidate not in self.anchors and candidate.subject_key == wanted:
                yield candidate

    def _spend_step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise PathError(Obstacle.LIMIT, f"more than {MAX_STEPS} candidates while building a path")

    def _remember(self, problem: Problem) -> None:
        if self.worst is None or problem.obstacle > self.worst.obstacle:
            self.worst = problem

    def _accepts(self, path: tuple[Certificate, ...]) -> bool:
        problem = self._signature_problem(path) or _authority_problem(path, self.purposes)
        problem = problem or _date_problem(path, self.now)
        if problem is not None:
            self._remember(problem)
        return problem is None

    def _signature_problem(self, path: tuple[Certificate, ...]) -> Problem | None:
        """Anchor first, so that no key is used before it was proven."""
        for position in range(len(path) - 2, -1, -1):
            child, issuer = path[position], path[position + 1]
            pair = (child.der, issuer.der)
            if pair not in self.signatures:
                self.checks += 1
                if self.checks > MAX_SIGNATURE_CHECKS:
                    raise PathError(Obstacle.LIMIT, f"more than {MAX_SIGNATURE_CHECKS} signature checks")
                self.signatures[pair] = (_ca_link if position else _leaf_link)(child, issuer)
            problem = self.signatures[pair]
            if problem is not None:
                return problem
        return None


def _by_key_identifier(
    child: Certificate, issuers: Iterator[Certificate] | Sequence[Certificate]
) -> list[Certificate]:
    """Issuers whose key identifier is the one named first; the signature decides in any case."""
    wanted = child.extensions.authority_key_id
    return sorted(
        issuers, key=lambda issuer: wanted is not None and issuer.extensions.subject_key_id != wanted
    )


def _leaf_link(child: Certificate, issuer: Certificate) -> Problem | None:
    return _link_problem(child, issuer, weak_hash=child.not_before >= SHA1_LEAVES_BEFORE)


@functools.lru_cache(maxsize=1024)
def _ca_link(child: Certificate, issuer: Certificate) -> Problem | None:
    """Remembered: it is a function of the two certificates' bytes, and a fleet shares its few CAs."""
    return _link_problem(child, issuer, weak_hash=True)


def _link_problem(child: Certificate, issuer: Certificate, *, weak_hash: bool) -> Problem | None:
    """What is wrong with the signature; `weak_hash` when SHA-1 may not be accepted here."""
    algorithm = child.algorithm
    if algorithm.hash_alg not in _HASHES or (weak_hash and algorithm.hash_alg is HashAlg.SHA1):
        return Problem(Obstacle.ALGORITHM, f"{_who(child)} is signed by {algorithm}, which is not accepted")
    if issuer.key is None:
        detail = f"{_who(issuer)} has a key of algorithm {issuer.key_algorithm}, which is not supported"
        return Problem(Obstacle.ALGORITHM, detail)
    if not signature_holds(issuer.key, algorithm, child.signature, child.signed):
        return Problem(Obstacle.SIGNATURE, f"{_who(child)} was not signed with the key of {_who(issuer)}")
    return None


def signature_holds(key: PublicKey, algorithm: SignatureAlgorithm, signature: bytes, signed: bytes) -> bool:
    """True when the signature over these bytes was made with the private part of this key.

    Also false when the algorithm is not supported or does not fit the key.
    """
    hash_alg = _HASHES.get(algorithm.hash_alg) if algorithm.hash_alg else None
    if hash_alg is None:
        return False
    try:
        match key, algorithm.scheme:
            case RSAPublicKey(), Scheme.RSA_PKCS1:
                key.verify(signature, signed, padding.PKCS1v15(), hash_alg)
            case RSAPublicKey(), Scheme.RSA_PSS:
                pss = padding.PSS(padding.MGF1(hash_alg), algorithm.salt_length)
                key.verify(signature, signed, pss, hash_alg)
            case EllipticCurvePublicKey(), Scheme.ECDSA:
                key.verify(signature, signed, ec.ECDSA(hash_alg))
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _authority_problem(path: tuple[Certificate, ...], purposes: frozenset[str] | None) -> Problem | None:
    """CA flag, key usage, purposes, critical extensions, path length and key strength of every issuer."""
    below = 0
    for position, issuer in enumerate(path[1:], start=1):
        fault = _authority_fault(issuer, purposes, below, is_anchor=position == len(path) - 1)
        if fault is not None:
            return Problem(Obstacle.AUTHORITY, f"{_who(issuer)} {fault}")
        if not issuer.self_issued:
            below += 1
    return None


def _authority_fault(  # noqa: PLR0911 - one line per rule reads best
    issuer: Certificate, purposes: frozenset[str] | None, below: int, *, is_anchor: bool
) -> str | None:
    extensions = issuer.extensions
    constraints, usage = extensions.basic_constraints, extensions.key_usage
    if constraints is None or not constraints.ca:
        return "is not a CA certificate"
    # RFC 5280 lets an absent key usage mean every usage; only old self-made roots lack it.
    if KeyUsage.KEY_CERT_SIGN not in (usage or KeyUsage(0)) and not (usage is None and is_anchor):
        return "may not sign certificates (key usage)"
    if constraints.path_length is not None and below > constraints.path_length:
        return f"allows {constraints.path_length} CA certificates below it; there are {below}"
    if unenforced := issuer.unenforced():
        return f"has extension {', '.join(unenforced)}, which cannot be enforced"
    listed = extensions.extended_key_usage
    if (
        listed is not None
        and purposes is not None
        and not (purposes | {OID_ANY_EXTENDED_KEY_USAGE}) & set(listed)
    ):
        return f"is limited to the purposes {', '.join(listed)}"
    if issuer.key is not None and (weak := weakness(issuer.key)):
        return f"has {weak}"
    return None


def _date_problem(path: tuple[Certificate, ...], now: datetime) -> Problem | None:
    for certificate in path:
        if now < certificate.not_before:
            when = f"is not valid before {certificate.not_before.isoformat()}"
        elif now > certificate.not_after:
            when = f"expired at {certificate.not_after.isoformat()}"
        else:
            continue
        return Problem(Obstacle.DATES, f"{_who(certificate)} {when}")
    return None
