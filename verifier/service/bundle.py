"""The evidence of one attestation as one blob, so that it can be audited and judged again."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from verifier.appraisal.evidence import PcrRequest
from verifier.service.model import AttestCommand

FORMAT: Final = "vtpm-attest evidence 1"


def pack(
    command: AttestCommand, ak_public: bytes, request: PcrRequest, boot_log: bytes | None
) -> tuple[bytes, bytes | None]:
    """The bundle (MessagePack, the log by digest) and the log's SHA-256. Its own SHA-256 names the evidence."""
    log_digest = None if boot_log is None else hashlib.sha256(boot_log).digest()
    bundle = msgspec.msgpack.encode(
        {
            "format": FORMAT,
            "attester_id": command.attester_id,
            "ak_public": ak_public,
            "nonce": command.nonce,
            "request": {"bank": request.bank.label, "pcrs": sorted(request.pcrs)},
            "attest": command.attest,
            "signature": command.signature,
            "pcrs": {bank.label: dict(sorted(values.items())) for bank, values in command.pcrs.items()},
            "boot_log_sha256": log_digest,
            "kernel_command_line": command.kernel_command_line,
            "smbios_uuid": command.identity.smbios_uuid,
            "boot_id": command.boot_id,
        }
    )
    return bundle, log_digest
