"""Certificates in a TPM's NV and the keys they certify. Nothing here is a trust decision: that is the verifier's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent import der
from agent.errors import TpmError
from agent.templates import PublicArea, TemplateError, parse_public
from agent.tpm import Tpm
from agent.wire.limits import MAX_CERTIFICATE

_OWNER_KEYS: Final = range(0x81000000, 0x81800000)
"""Persistent handles of the storage and endorsement hierarchies; platform keys lie above."""


def nv_certificate(tpm: Tpm, index: int, what: str, notes: list[str]) -> bytes | None:
    """The certificate at `index`, trimmed to its DER; what cannot be used becomes a note, never an error."""
    try:
        content = der.trim(tpm.nv_read(index))
    except (TpmError, der.DerError) as error:
        notes.append(f"NV {index:#010x} ({what}) ignored: {error}")
        return None
    if len(content) > MAX_CERTIFICATE:
        notes.append(f"NV {index:#010x} ({what}) ignored: a certificate of {len(content)} bytes")
        return None
    return content


def certifies(certificate: bytes, area: PublicArea) -> bool:
    """Whether the certificate is for exactly this key."""
    try:
        return der.subject_key(certificate) == tuple(part.lstrip(b"\0") for part in area.key)
    except der.DerError:
        return False


def persistent_keys(tpm: Tpm) -> Iterator[tuple[int, PublicArea]]:
    """RSA and ECC keys that live in the TPM, by ascending handle."""
    for handle in tpm.persistent_handles():
        if handle not in _OWNER_KEYS:
            continue
        try:
            with tpm.persistent(handle) as key:
                area = parse_public(key.public)
        except (TpmError, TemplateError):
            continue  # a symmetric key or an HMAC key
        yield handle, area
