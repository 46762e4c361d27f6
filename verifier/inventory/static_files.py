"""A file of machines and their endorsement keys, for everything that no hypervisor manager tells.

What it says is the operator's word. See docs/inventory.md for the format.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asn1crypto import pem

from verifier.appraisal.inventory import InventoryMachine, MachineKey
from verifier.appraisal.smbios import canonical_uuid
from verifier.errors import EvidenceError
from verifier.inventory.eks import certificate_fingerprint
from verifier.inventory.errors import InventoryFileError
from verifier.inventory.static_rows import Row, read_rows

MAX_FILE: Final = 64 * 1024 * 1024
MAX_CERTIFICATE_FILE: Final = 64 * 1024
MAX_NAME: Final = 200
MAX_KEYS: Final = 16
"""Endorsement keys of one machine; a TPM has two or three."""
_SHA256: Final = re.compile(r"(?:[0-9a-f]{2}:?){31}[0-9a-f]{2}", re.IGNORECASE)
_PEM: Final = b"-----BEGIN "


@dataclass(frozen=True, slots=True)
class StaticInventory:
    """A file as it was read. `files` are all that were opened, so that a change of any is noticed."""

    machines: tuple[InventoryMachine, ...]
    files: tuple[Path, ...]


def read_static(source: str, path: Path) -> StaticInventory:
    """Read a whole inventory file, and the certificate files it names (relative to its own folder).

    All or nothing: a list of which a part was passed over would make machines unknown that are listed.

    Raises:
        InventoryFileError: file, line and field of the first mistake.
    """
    files = [path]
    machines: list[InventoryMachine] = []
    lines: dict[str, int] = {}
    for row in read_rows(path, _read(path, path, None, MAX_FILE)):
        if not row.name:
            raise InventoryFileError(path, row.line, "name", "is empty")
        if len(row.name) > MAX_NAME:
            raise InventoryFileError(path, row.line, "name", f"longer than {MAX_NAME} characters")
        if row.name in lines:
            detail = f"{row.name!r} is on line {lines[row.name]} already"
            raise InventoryFileError(path, row.line, "name", detail)
        lines[row.name] = row.line
        machines.append(_machine(source, path, row, files))
    return StaticInventory(tuple(machines), tuple(files))


def _machine(source: str, path: Path, row: Row, files: list[Path]) -> InventoryMachine:
    certificates = tuple(dict.fromkeys(_certificates(path, row, files)))
    fingerprints = {_fingerprint(path, row, text) for text in row.ek_sha256}
    for der in certificates:
        try:
            fingerprints.add(certificate_fingerprint(der))
        except EvidenceError as error:
            raise InventoryFileError(path, row.line, "ek_certificate", str(error)) from error
    if len(fingerprints) > MAX_KEYS:
        raise InventoryFileError(path, row.line, "", f"more than {MAX_KEYS} endorsement keys")
    smbios_uuid = _uuid(path, row.line, "smbios_uuid", row.smbios_uuid)
    if not fingerprints and smbios_uuid is None:
        detail = "neither an endorsement key nor an SMBIOS UUID: nothing to recognise the machine by"
        raise InventoryFileError(path, row.line, "", detail)
    return InventoryMachine(
        key=MachineKey(source, row.name),
        name=row.name,
        instance_uuid=_uuid(path, row.line, "instance_uuid", row.instance_uuid),
        smbios_uuid=smbios_uuid,
        ek_fingerprints=frozenset(fingerprints),
        ek_certificates=certificates,
        secure_boot=_flag(path, row),
        labels=row.labels,
    )


def _uuid(path: Path, line: int, field: str, text: str) -> str | None:
    if not text:
        return None
    uuid = canonical_uuid(text)
    if uuid is None:
        raise InventoryFileError(path, line, field, f"{text[:80]!r} is not the UUID of a machine")
    return uuid


def _flag(path: Path, row: Row) -> bool | None:
    values = {"": None, "true": True, "false": False}
    if row.secure_boot.lower() not in values:
        detail = f"{row.secure_boot[:80]!r} is neither true nor false nor empty"
        raise InventoryFileError(path, row.line, "secure_boot", detail)
    return values[row.secure_boot.lower()]


def _fingerprint(path: Path, row: Row, text: str) -> bytes:
    if _SHA256.fullmatch(text) is None:
        detail = f"{text[:80]!r} is not a SHA-256 in 64 hexadecimal digits"
        raise InventoryFileError(path, row.line, "ek_sha256", detail)
    return bytes.fromhex(text.replace(":", ""))


def _certificates(path: Path, row: Row, files: list[Path]) -> Iterator[bytes]:
    for text in row.ek_certificate:
        try:
            yield base64.b64decode(text, validate=True)
        except ValueError as error:
            detail = f"not base64 of a DER certificate: {error}"
            raise InventoryFileError(path, row.line, "ek_certificate", detail) from None
    for name in row.ek_certificate_file:
        file = path.parent / name
        files.append(file)
        yield from _from_file(path, row, file)


def _from_file(path: Path, row: Row, file: Path) -> Iterator[bytes]:
    content = _read(file, path, row.line, MAX_CERTIFICATE_FILE)
    if not content.lstrip().startswith(_PEM):
        yield content
        return
    try:
        found = [
            der for label, _, der in pem.unarmor(content, multiple=True) if label.endswith("CERTIFICATE")
        ]
    except (ValueError, TypeError) as error:
        detail = f"{file} is not PEM: {error}"
        raise InventoryFileError(path, row.line, "ek_certificate_file", detail) from None
    if not found:
        raise InventoryFileError(path, row.line, "ek_certificate_file", f"{file} holds no certificate")
    yield from found


def _read(file: Path, path: Path, line: int | None, limit: int) -> bytes:
    field = "" if line is None else "ek_certificate_file"
    try:
        with file.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise InventoryFileError(path, line, field, f"cannot read {file}: {error.strerror}") from None
    if len(content) > limit:
        raise InventoryFileError(path, line, field, f"{file} has more than {limit} bytes")
    return content
