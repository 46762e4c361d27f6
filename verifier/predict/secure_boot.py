"""PCR 7: the Secure Boot variables, and the authority that lets each image run.

TCG PC Client Platform Firmware Profile, rev 1.06, sections 3.3.4.8 and 10.4.2.6, as edk2 does it (Tcg2Dxe.c,
DxeImageVerificationLib); shim continues in the same form (`verifier.predict.shim`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from verifier.predict.authenticode import BootImage, ImageSignature, RejectedSignature, subject, subject_of
from verifier.predict.errors import PredictionError
from verifier.predict.model import PredictedEvent
from verifier.predict.variables import SecureBootVariables, split_lists
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.signature_list import Signature
from verifier.tcg.uefi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE

SECURE_BOOT_PCR: Final = 7
SEPARATOR: Final = bytes(4)

_VARIABLE: Final = struct.Struct("<16sQQ")
_HASHED_CERTIFICATES: Final = ("x509-sha256", "x509-sha384", "x509-sha512")


@dataclass(frozen=True, slots=True)
class Authority:
    """The entry of a signature database that let an image run, as it is measured: owner and certificate or digest."""

    vendor: bytes
    variable: str
    value: bytes
    what: str


@dataclass(frozen=True, slots=True)
class Database:
    """A signature database under the name it is measured by.

    Attributes:
        first_only: only the first entry of each list counts for certificates, as in shim.
    """

    vendor: bytes
    variable: str
    lists: bytes
    first_only: bool = False

    def entries(self) -> Iterator[Signature]:
        """In the order in which they are tried."""
        for entries in split_lists(self.lists):
            yield from entries[:1] if self.first_only and entries[0].kind == "x509" else entries


def variable_data(vendor: bytes, name: str, value: bytes) -> bytes:
    """UEFI_VARIABLE_DATA, all of which is hashed. The name is UTF-16 without terminator."""
    encoded = name.encode("utf-16-le")
    return _VARIABLE.pack(vendor, len(encoded) // 2, len(value)) + encoded + value


def configuration_events(variables: SecureBootVariables, bank: HashAlg) -> tuple[PredictedEvent, ...]:
    """What firmware measures before the separator, and the separator. A missing variable has no value."""
    measured = [
        (GLOBAL_VARIABLE, "SecureBoot", b"\x01" if variables.enabled else b"\0"),
        (GLOBAL_VARIABLE, "PK", variables.pk),
        (GLOBAL_VARIABLE, "KEK", variables.kek),
        (IMAGE_SECURITY_DATABASE, "db", variables.db),
        (IMAGE_SECURITY_DATABASE, "dbx", variables.dbx),
    ]
    if variables.dbt is not None:
        measured.append((IMAGE_SECURITY_DATABASE, "dbt", variables.dbt))
    events = [
        PredictedEvent(
            pcr=SECURE_BOOT_PCR,
            event_type=EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
            label=name,
            digest=bank.digest(variable_data(vendor, name, value)),
        )
        for vendor, name, value in measured
    ]
    return (*events, separator(SECURE_BOOT_PCR, bank))


def separator(pcr: int, bank: HashAlg) -> PredictedEvent:
    """The end of what firmware measures into a PCR on its own account."""
    return PredictedEvent(
        pcr=pcr, event_type=EventType.EV_SEPARATOR, label=SEPARATOR.hex(), digest=bank.digest(SEPARATOR)
    )


def authority_events(authorities: Iterable[Authority], bank: HashAlg) -> tuple[PredictedEvent, ...]:
    """One event per authority, the first time it is used."""
    return tuple(
        PredictedEvent(
            pcr=SECURE_BOOT_PCR,
            event_type=EventType.EV_EFI_VARIABLE_AUTHORITY,
            label=f"{authority.variable}: {authority.what}",
            digest=bank.digest(variable_data(authority.vendor, authority.variable, authority.value)),
        )
        for authority in dict.fromkeys(authorities)
    )


def firmware_authority(image: BootImage, variables: SecureBootVariables) -> Authority:
    """The entry of db by which firmware lets this image run.

    Signatures in the order of the image; for each, the certificates of db in its order; then digests in db.

    Raises:
        PredictionError: dbx forbids the image, or nothing in db allows it, so that it would not boot.
    """
    database = Database(IMAGE_SECURITY_DATABASE, "db", variables.db)
    refuse_revoked(image, Database(IMAGE_SECURITY_DATABASE, "dbx", variables.dbx))
    for signature in image.valid_signatures:
        found = by_certificate(signature, database) or by_digest(database, signature.alg, signature.digest)
        if found is not None:
            return found
    if not image.signatures:
        found = by_digest(database, HashAlg.SHA256, image.digest(HashAlg.SHA256))
        if found is not None:
            return found
    raise PredictionError(f"db does not let it run: {describe_signatures(image)}", where=image.name)


def by_certificate(
    signature: ImageSignature, database: Database, *, skip: Callable[[bytes], bool] | None = None
) -> Authority | None:
    """The first certificate of the database that the signature chains to."""
    for entry in database.entries():
        if entry.kind == "x509" and not (skip and skip(entry.data)) and signature.anchored_in(entry.data):
            return Authority(
                database.vendor, database.variable, entry.owner + entry.data, subject(entry.data)
            )
    return None


def by_digest(database: Database, alg: HashAlg, digest: bytes) -> Authority | None:
    """The entry of the database that is this digest of an image."""
    for entry in database.entries():
        if HASH_BY_LABEL.get(entry.kind) is alg and entry.data == digest:
            return Authority(
                database.vendor, database.variable, entry.owner + entry.data, f"{alg.label} {digest.hex()}"
            )
    return None


def refuse_revoked(image: BootImage, database: Database) -> None:
    """Raise `PredictionError` where a forbidden database names the image or a certificate in its signatures.

    Certificates forbidden by digest are refused whatever their revocation time: whether a timestamp would save
    the image does not follow from it.
    """
    entries = tuple(database.entries())
    for alg in {alg for entry in entries if (alg := HASH_BY_LABEL.get(entry.kind)) is not None}:
        if by_digest(database, alg, image.digest(alg)) is not None:
            raise PredictionError(f"{database.variable} forbids its {alg.label} digest", where=image.name)
    certificates = [entry.data for entry in entries if entry.kind == "x509"]
    hashed = {kind: _digests(entries, kind) for kind in _HASHED_CERTIFICATES}
    for signature in image.valid_signatures:
        for certificate in certificates:
            if signature.anchored_in(certificate):
                raise PredictionError(f"{database.variable} forbids {subject(certificate)}", where=image.name)
        for own in (signature.signer, *signature.certificates):
            signed = own.tbs_certificate_bytes
            if any(
                HASH_BY_LABEL[kind.removeprefix("x509-")].digest(signed) in digests
                for kind, digests in hashed.items()
            ):
                raise PredictionError(f"{database.variable} revokes {subject_of(own)}", where=image.name)


def _digests(entries: Iterable[Signature], kind: str) -> frozenset[bytes]:
    """Digests of certificates, without the revocation time behind each."""
    size = HASH_BY_LABEL[kind.removeprefix("x509-")].size
    return frozenset(entry.data[:size] for entry in entries if entry.kind == kind)


def describe_signatures(image: BootImage) -> str:
    """Who signed, or why a signature does not count, for the message of a refusal."""
    told = [
        each.why if isinstance(each, RejectedSignature) else f"signed by {subject_of(each.signer)}"
        for each in image.signatures
    ]
    return "; ".join(told) if told else "it is not signed, and its digest is not listed"
