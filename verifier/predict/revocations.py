"""Published revocations as reference values: a dbx update, a dbx as it is, or the JSON that explains one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from verifier.crypto.cert_reader import parse_certificate
from verifier.errors import EvidenceError, PolicyError
from verifier.policy.document import REFERENCE_SCHEMA
from verifier.policy.writing import dump
from verifier.predict.variables import signature_database
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.signature_list import Signature, parse_security_version, parse_signature_lists

MAX_LIST: Final = 16 * 1024 * 1024
_DIGEST_SIZE: Final = 32
_SHORT: Final = 32
_ANYONE: Final = bytes(16)
"""Who owns an entry means nothing here."""
_BY_DIGEST: Final = frozenset({"sha256", "x509-sha256"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One entry.

    Attributes:
        name: as rules may name it; its own within a list.
        digest: SHA-256: of an image (Authenticode), of a certificate's DER, or of its to-be-signed part; or the
            32 bytes that stand for a security version.
        note: what is revoked, for people.
    """

    name: str
    digest: bytes
    note: str


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What a file revokes; `skipped` names what is in it and cannot be required, with the reason."""

    entries: tuple[Revocation, ...]
    skipped: tuple[str, ...]


def read_revocations(data: bytes, architecture: str | None = None) -> RevocationList:
    """Read a published list. Whoever names the file vouches for it: no signature is checked.

    Args:
        data: `DBXUpdate.bin`, a dbx (signature lists, or as efivarfs shows it), a certificate, or the JSON beside an
            update (`dbx_info`).
        architecture: of the JSON's images: only those of this one (`x64`, `arm64`, `x86`, `arm`).

    Raises:
        PredictionError: none of these.
        PolicyError: nothing in it that can be required, JSON of another kind, or no such architecture.
        MalformedInputError: a binary that ends or contradicts itself; carries the offset.
    """
    if data.lstrip()[:1] == b"{":
        found, skipped = _from_json(data, architecture)
    else:
        found, skipped = _from_binary(data)
    entries = {entry.digest: entry for entry in found}
    if not entries:
        raise PolicyError("revokes nothing that a rule could require")
    return RevocationList(tuple(entries.values()), tuple(dict.fromkeys(skipped)))


def reference_set(revocations: RevocationList, set_id: str, description: str) -> str:
    """A document of reference values, which a rule requires as `ref:SET/*`."""
    values = {
        entry.name: {"digests": [entry.digest.hex()], "note": entry.note} for entry in revocations.entries
    }
    return dump({"schema": REFERENCE_SCHEMA, "id": set_id, "description": description, "values": values})


def _from_binary(data: bytes) -> tuple[list[Revocation], list[str]]:
    found, skipped = [], []
    for signature in parse_signature_lists(signature_database(data, _ANYONE)):
        if signature.kind == "x509":
            found.append(_certificate(signature))
        elif signature.kind in _BY_DIGEST:
            found.append(_digest(signature.data[:_DIGEST_SIZE], signature.kind, ""))
        else:
            skipped.append(
                f"entries of type {signature.kind}: only SHA-256 is proven of what a boot measured"
            )
    return found, skipped


def _certificate(signature: Signature) -> Revocation:
    digest = HashAlg.SHA256.digest(signature.data)
    try:
        note = f"certificate {parse_certificate(signature.data).subject_text}"
    except EvidenceError:
        note = "a certificate that does not parse"
    return Revocation(name=f"x509-{digest.hex()[:_SHORT]}", digest=digest, note=note)


def _digest(digest: bytes, kind: str, note: str) -> Revocation:
    version = parse_security_version(digest)
    if version is not None:
        number = f"{version.major}.{version.minor}"
        name = f"svn-{version.component}-{number}"
        return Revocation(name=name, digest=digest, note=f"{version.component} below version {number}")
    return Revocation(name=f"{kind}-{digest.hex()[:_SHORT]}", digest=digest, note=note)


def _from_json(data: bytes, architecture: str | None) -> tuple[list[Revocation], list[str]]:
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
        images: Mapping[str, list[dict[str, str]]] = msgspec.convert(
            document.get("images", {}), dict[str, list[dict[str, str]]]
        )
        versions = msgspec.convert(document.get("svns", []), list[dict[str, str]])
        certificates = msgspec.convert(document.get("certificates", []), list[dict[str, str]])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:  # ValidationError is a DecodeError
        raise PolicyError(f"not a list of revocations: {error}") from error
    if architecture is not None and architecture not in images:
        raise PolicyError(f"has no images of {architecture}; it has {', '.join(images)}")
    chosen = images.values() if architecture is None else [images[architecture]]
    found = [*_json_images(chosen)]
    found += [_digest(_hex(entry.get("value", "")), "sha256", "") for entry in versions]
    skipped = [
        f"certificate {entry.get('subjectName', '')}: named by SHA-1 only; the update's binary has it whole"
        for entry in certificates
    ]
    return found, skipped


def _json_images(lists: Iterable[Iterable[Mapping[str, str]]]) -> Iterator[Revocation]:
    for entry in (entry for entries in lists for entry in entries):
        parts = (
            entry.get(key, "").strip() for key in ("filename", "companyName", "dateOfAddition", "description")
        )
        digest = _hex(entry.get("authenticodeHash", ""))
        yield _digest(digest, "sha256", ", ".join(part for part in parts if part))


def _hex(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != _DIGEST_SIZE:
        raise PolicyError(f"{text[:80]!r} is no SHA-256 digest in hex")
    return digest
