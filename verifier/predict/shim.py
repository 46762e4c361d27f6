"""shim as the first image: what it verifies with, and what it adds to PCRs 7 and 14 (shim 15.7 to 16.1, README.tpm)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from verifier.errors import MalformedInputError, UnsupportedError
from verifier.predict.authenticode import BootImage, is_module_signing_only, subject
from verifier.predict.errors import PredictionError
from verifier.predict.model import PredictedEvent
from verifier.predict.pe import PeImage
from verifier.predict.secure_boot import (
    Authority,
    Database,
    by_certificate,
    by_digest,
    describe_signatures,
    refuse_revoked,
)
from verifier.predict.variables import SecureBootVariables, certificate_list
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.uefi import IMAGE_SECURITY_DATABASE, SHIM_LOCK

MOK_PCR: Final = 14
STRUCTURE: Final = "shim"
OLDEST: Final = (15, 7)
"""Older ones measure other names for the same authorities."""
SBAT_ORIGINAL: Final = b"sbat,1,2021030218\n"
"""What shim resets SbatLevel to while Secure Boot is off."""

_VERSION: Final = re.compile(rb"\$Version: (\d{1,4})\.(\d{1,4})")
_VERSION_SECTION: Final = ".data.ident"
_VENDOR: Final = ".vendor_cert"
_VENDOR_TABLE: Final = struct.Struct("<IIII")
_SBAT: Final = ".sbatlevel"
_SBAT_OFFSETS: Final = struct.Struct("<II")
_SBAT_VERSION_SIZE: Final = 4
_DER: Final = b"\x30"
_EMPTY_KEYS: Final = bytes(32)
"""shim puts this digest into a list that would otherwise be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shim:
    """What a shim binary carries.

    Attributes:
        version: major and minor.
        vendor: the vendor's certificate (DER) or signature lists.
        vendor_is_database: built with a vendor_db, which is measured under that name.
        forbidden: the vendor's own forbidden database, signature lists.
        sbat_automatic: SbatLevel that this shim sets where an older one, or none, is set.
    """

    version: tuple[int, int]
    vendor: bytes
    vendor_is_database: bool
    forbidden: bytes
    sbat_automatic: bytes

    @property
    def mok_list(self) -> bytes:
        """`MokListRT` of a machine whose owner has enrolled no key."""
        if not self.vendor:
            return _filler()
        return self.vendor if self.vendor_is_database else certificate_list(self.vendor, SHIM_LOCK)


def is_shim(image: PeImage) -> bool:
    """Whether an image carries a vendor's certificates the way shim does."""
    return any(section.name == _VENDOR for section in image.sections)


def read_shim(image: PeImage) -> Shim:
    """Read what a shim carries in its own sections.

    Raises:
        UnsupportedError: older than 15.7, or without the sections that say what it measures.
        MalformedInputError: those sections do not hold what they should.
    """
    version = _version(image)
    if version < OLDEST:
        raise UnsupportedError(
            f"shim {version[0]}.{version[1]} measures other names than {OLDEST[0]}.{OLDEST[1]} and later",
            structure=STRUCTURE,
        )
    table = _content(image, _VENDOR)
    if len(table) < _VENDOR_TABLE.size:
        raise MalformedInputError(STRUCTURE, 0, f"{_VENDOR} has {len(table)} bytes")
    size, forbidden_size, offset, forbidden_offset = _VENDOR_TABLE.unpack_from(table)
    vendor = _slice(table, offset, size, "the vendor's certificates")
    return Shim(
        version=version,
        vendor=vendor,
        vendor_is_database=bool(vendor) and not vendor.startswith(_DER),
        forbidden=_slice(table, forbidden_offset, forbidden_size, "the vendor's forbidden list"),
        sbat_automatic=_sbat_level(_content(image, _SBAT)),
    )


def measured_sbat_level(shim: Shim, variables: SecureBootVariables | None, *, enabled: bool) -> bytes:
    """SbatLevel as shim measures it: the newer of the machine's and its own; reset while Secure Boot is off."""
    if not enabled:
        return SBAT_ORIGINAL
    own = variables.shim.sbat_level if variables is not None else None
    return own if own is not None and _dated(own) >= _dated(shim.sbat_automatic) else shim.sbat_automatic


def setup_authority(shim: Shim, variables: SecureBootVariables | None, *, enabled: bool) -> Authority:
    """What shim measures into PCR 7 on start, before it loads anything.

    Raises:
        PredictionError: the machine's owner switched shim's verification off.
    """
    if variables is not None and variables.shim.insecure_state not in (None, b"\0"):
        raise PredictionError("shim's verification is switched off on this machine", where="MokSBStateRT")
    level = measured_sbat_level(shim, variables, enabled=enabled)
    return Authority(SHIM_LOCK, "SbatLevel", level, level.split(b"\n", 1)[0].decode("ascii", "replace"))


def mok_events(
    shim: Shim, variables: SecureBootVariables | None, bank: HashAlg
) -> tuple[PredictedEvent, ...]:
    """PCR 14: the key lists that shim mirrors, as the machine has them, else as this shim makes them."""
    own = variables.shim if variables is not None else None
    measured = [
        ("MokList", (own and own.mok_list) or shim.mok_list),
        ("MokListX", (own and own.mok_list_x) or shim.forbidden or _filler()),
        ("MokListTrusted", (own and own.mok_list_trusted) or b"\x01"),
    ]
    return tuple(
        PredictedEvent(pcr=MOK_PCR, event_type=EventType.EV_IPL, label=name, digest=bank.digest(value))
        for name, value in measured
    )


def shim_authority(image: BootImage, shim: Shim, variables: SecureBootVariables) -> Authority:
    """The entry by which shim lets an image run: db, the vendor's database, then MokList.

    Digests come before certificates in each, and of a list of certificates shim reads the first alone.

    Raises:
        PredictionError: it is forbidden, or nothing allows it, so that it would not boot.
    """
    refuse_revoked(image, Database(IMAGE_SECURITY_DATABASE, "dbx", variables.dbx))
    refuse_revoked(image, Database(SHIM_LOCK, "MokListX", variables.shim.mok_list_x or shim.forbidden))
    databases = [Database(IMAGE_SECURITY_DATABASE, "db", variables.db, first_only=True)]
    if shim.vendor_is_database:
        databases.append(Database(IMAGE_SECURITY_DATABASE, "vendor_db", shim.vendor, first_only=True))
    databases.append(
        Database(SHIM_LOCK, "MokListRT", variables.shim.mok_list or shim.mok_list, first_only=True)
    )
    by_hash = (by_digest(database, HashAlg.SHA256, image.digest(HashAlg.SHA256)) for database in databases)
    found = next((each for each in by_hash if each is not None), None)
    for signature in image.valid_signatures if found is None else ():
        for database in databases:
            found = found or by_certificate(signature, database, skip=is_module_signing_only)
    if found is None:
        raise PredictionError(
            f"neither db nor {_vendor_name(shim)} lets it run: {describe_signatures(image)}", where=image.name
        )
    return found


def _dated(level: bytes) -> bytes:
    """The date in `sbat,1,2025021800`; compared as text, which is what shim does."""
    return level.split(b"\n", 1)[0].rpartition(b",")[2]


def _vendor_name(shim: Shim) -> str:
    if not shim.vendor or shim.vendor_is_database:
        return "shim's own keys"
    return f"shim's {subject(shim.vendor)}"


def _filler() -> bytes:
    kind = bytes.fromhex("2616c4c14c509240aca941f936934328")
    entry = SHIM_LOCK + _EMPTY_KEYS
    return kind + struct.pack("<III", 28 + len(entry), 0, len(entry)) + entry


def _version(image: PeImage) -> tuple[int, int]:
    match = _VERSION.search(_content(image, _VERSION_SECTION))
    if match is None:
        raise UnsupportedError("this shim does not say its version", structure=STRUCTURE)
    return int(match[1]), int(match[2])


def _sbat_level(section: bytes) -> bytes:
    """`.sbatlevel`: a version, then the offsets (from after it) of the automatic and of the latest level."""
    if len(section) < _SBAT_VERSION_SIZE + _SBAT_OFFSETS.size:
        raise MalformedInputError(STRUCTURE, 0, f"{_SBAT} has {len(section)} bytes")
    automatic = _SBAT_OFFSETS.unpack_from(section, _SBAT_VERSION_SIZE)[0]
    level = section[_SBAT_VERSION_SIZE + automatic :].split(b"\0", 1)[0]
    if not level.startswith(b"sbat,"):
        raise MalformedInputError(STRUCTURE, 0, f"{_SBAT} does not lead to an SBAT level")
    return level


def _content(image: PeImage, name: str) -> bytes:
    section = image.section(name)
    if section is None:
        raise UnsupportedError(f"this shim has no {name} section", structure=STRUCTURE)
    return b"".join(image.content(section))


def _slice(table: bytes, offset: int, size: int, what: str) -> bytes:
    if offset + size > len(table):
        raise MalformedInputError(STRUCTURE, offset, f"{what}: {size} bytes of {len(table)}")
    return table[offset : offset + size]
