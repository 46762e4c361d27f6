"""Read evidence from files: a `collect` bundle (JSON) or a folder laid out as the captured boots are."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from verifier.appraisal.evidence import Evidence, NvCertificate
from verifier.appraisal.ima.segment import ImaEvidence, ImaSegment
from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

BUNDLE_FORMAT: Final = "vtpm-attest/bundle/1"
MAX_BUNDLE: Final = 128 * 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Evidence at rest, with what it claims to be signed by. Proves neither freshness nor whose AK it is."""

    name: str
    evidence: Evidence
    ak_public: bytes
    nonce: bytes


def read_bundle(path: Path, *, ak: str = "ecc") -> Bundle:
    """Read `path`; for a folder `ak` chooses `quote_ecc.*` or `quote_rsa.*`.

    Raises `EvidenceError` naming the file and the field.
    """
    if path.is_dir():
        bundle = path / "bundle.json"
        return _read_json(bundle) if bundle.exists() else _read_folder(path, ak)
    return _read_json(path)


def _bad(path: Path, detail: str) -> EvidenceError:
    return EvidenceError(Reason.MALFORMED_REQUEST, detail, structure=path.name)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BUNDLE:
            raise _bad(path, f"is larger than {MAX_BUNDLE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error


def _read_object(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _bad(path, "is not a JSON object")
    return value


def _field(path: Path, where: Mapping[str, Any], name: str, convert: Callable[[Any], T]) -> T:
    if name not in where:
        raise _bad(path, f"has no {name!r}")
    try:
        return convert(where[name])
    except (TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise _bad(path, f"{name!r} is not what it should be: {error}") from error


def _base64(value: str) -> bytes:
    return b64decode(value, validate=True)


def _pcr_banks(value: Mapping[str, Mapping[str, str]]) -> dict[HashAlg, dict[int, bytes]]:
    return {
        HASH_BY_LABEL[bank]: {int(index): bytes.fromhex(digest) for index, digest in values.items()}
        for bank, values in value.items()
        if bank in HASH_BY_LABEL and values
    }


def _certificates(value: object) -> tuple[NvCertificate, ...]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise TypeError("not a list of objects")
    return tuple(
        NvCertificate(*(_base64(one.get(name)) for name in ("public", "attest", "signature")))
        for one in value
    )


def _ima(content: bytes | None) -> ImaEvidence | None:
    """A whole list, of a boot nobody has seen."""
    return None if content is None else ImaEvidence(ImaSegment(content, 0, len(content)))


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("not text")
    return value


def bundle_of(document: Mapping[str, Any], name: str) -> Bundle:
    """A bundle that is at hand; raises `EvidenceError` naming the field."""
    return _bundle(Path(name), document)


def _read_json(path: Path) -> Bundle:
    return _bundle(path, _read_object(path))


def _bundle(path: Path, document: Mapping[str, Any]) -> Bundle:
    if document.get("format") != BUNDLE_FORMAT:
        raise _bad(path, f"format is {document.get('format')!r}, not {BUNDLE_FORMAT!r}")
    quote = _field(path, document, "quote", dict)
    identity = document.get("identity") or {}
    log, userspace = document.get("boot_log"), document.get("userspace_log")
    ima = None if document.get("ima_log") is None else _field(path, document, "ima_log", _base64)
    return Bundle(
        name=path.stem,
        evidence=Evidence(
            attest=_field(path, quote, "attest", _base64),
            signature=_field(path, quote, "signature", _base64),
            pcrs=_field(path, document, "pcrs", _pcr_banks),
            boot_log=None if log is None else _field(path, document, "boot_log", _base64),
            kernel_command_line=_text(document.get("kernel_command_line")),
            smbios_uuid=_text(identity.get("smbios_uuid")) if isinstance(identity, dict) else None,
            boot_id=_text(document.get("boot_id")),
            userspace_log=None if userspace is None else _field(path, document, "userspace_log", _base64),
            ima=_ima(ima),
            nvpcrs=_field(path, {"nvpcrs": document.get("nvpcrs", [])}, "nvpcrs", _certificates),
        ),
        ak_public=_field(path, document, "ak_public", _base64),
        nonce=_field(path, document, "nonce", bytes.fromhex),
    )


def _read_folder(folder: Path, ak: str) -> Bundle:
    meta_path, pcr_path = folder / "meta.json", folder / "pcrs.json"
    meta = _read_object(meta_path)
    log, userspace = folder / "binary_bios_measurements", folder / "tpm2-measure.log"
    certificates, ima = folder / "nvpcrs.json", folder / "binary_runtime_measurements"
    return Bundle(
        name=folder.name,
        evidence=Evidence(
            attest=_read(folder / f"quote_{ak}.msg"),
            signature=_read(folder / f"quote_{ak}.sig"),
            pcrs=_field(pcr_path, {"pcrs": _read_object(pcr_path)}, "pcrs", _pcr_banks),
            boot_log=_read(log) if log.exists() else None,
            kernel_command_line=_text(meta.get("cmdline")),
            userspace_log=_read(userspace) if userspace.exists() else None,
            ima=_ima(_read(ima) if ima.exists() else None),
            nvpcrs=_field(certificates, _read_object(certificates), ak, _certificates)
            if certificates.exists()
            else (),
        ),
        ak_public=_read(folder / f"ak_{ak}.pub"),
        nonce=_field(meta_path, meta, "nonce", bytes.fromhex),
    )
