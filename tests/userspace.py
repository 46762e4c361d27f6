"""Measure and log as systemd does from userspace, on whatever TPM: for tests, vectors and the demo.

Strings, digests and the format of the log are those of systemd 262 (TPM2_PCR_MEASUREMENTS.md; src/shared/tpm2-util.c):
one object per record, in this order of members, between 0x1E and a line feed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from verifier.tcg.algorithms import HashAlg

BOOT_ID = "1d5bf4c5ab0b4e3a9d7a4a2bd6a0a5c3"
MACHINE_ID = "4691595be6a345f1833cc75fab63e475"
ROOT = "file-system:ext4:1e023a55-60f9-4b6b-9b80-67438dc5f065:root:2e9f:4f68:root-x86-64"
PRODUCT = "product-id:9d3c8c2f5a0e4d6f8b1a2c3d4e5f6071"
HARDWARE, CRYPTSETUP = 0x01D10200, 0x01D10201
ATTRIBUTES = 0x08060044
"""authwrite, nt=extend, ownerread, authread, clear_stclear; systemd 262 has policywrite for authwrite."""


class Measures(Protocol):
    """What is needed of a TPM; `SoftwareTpm` has it."""

    def extend(self, pcr: int, digests: Mapping[HashAlg, bytes]) -> None: ...

    def nv_define_extend(self, handle: int, attributes: int) -> None: ...

    def nv_extend(self, handle: int, data: bytes) -> None: ...

    def nv_name(self, handle: int) -> bytes: ...


def record(
    digests: Mapping[HashAlg, bytes],
    text: str | None,
    label: str,
    *,
    timestamp: int = 0,
    pcr: int | None = None,
    nv: tuple[int, str] | None = None,
) -> bytes:
    """One record of the log."""
    where: dict[str, object] = {"pcr": pcr} if nv is None else {"nv_index": nv[0]}
    content: dict[str, object] = {} if nv is None else {"nvIndexName": nv[1]}
    if text is not None:
        content["string"] = text
    content |= {"bootId": BOOT_ID, "timestamp": timestamp, "eventType": label}
    listed = [{"hashAlg": bank.label, "digest": digest.hex()} for bank, digest in digests.items()]
    document = where | {"digests": listed, "content_type": "systemd", "content": content}
    return b"\x1e" + json.dumps(document, separators=(",", ":")).encode() + b"\n"


@dataclass
class Systemd:
    """One boot's userspace: extends the TPM and writes the log.

    Attributes:
        records: the log, record by record; a test may take some away, or edit them.
    """

    tpm: Measures
    banks: tuple[HashAlg, ...] = (HashAlg.SHA1, HashAlg.SHA256)
    records: list[bytes] = field(default_factory=list)
    _names: dict[int, str] = field(default_factory=dict)

    @property
    def log(self) -> bytes:
        return b"".join(self.records)

    def _extend(self, pcr: int, digests: Mapping[HashAlg, bytes], text: str, label: str) -> None:
        self.tpm.extend(pcr, digests)
        self.records.append(record(digests, text, label, pcr=pcr, timestamp=len(self.records)))

    def measure(self, pcr: int, text: str, label: str) -> None:
        """systemd-pcrextend: the string as such."""
        self._extend(pcr, {bank: bank.digest(text.encode()) for bank in self.banks}, text, label)

    def phase(self, *words: str) -> None:
        for word in words:
            self.measure(11, word, "phase")

    def machine_id(self, identifier: str = MACHINE_ID) -> None:
        self.measure(15, f"machine-id:{identifier}", "machine-id")

    def file_system(self, text: str = ROOT) -> None:
        self.measure(15, text, "filesystem")

    def volume_key(self, name: str = "root", key: bytes = b"volume key") -> None:
        """systemd-cryptsetup: an HMAC under the key over a text that the log shows."""
        text = f"cryptsetup:{name}:87610dc6-998d-4887-8810-8ed6584d5ac4"
        digests = {bank: hmac.digest(key, text.encode(), bank.label) for bank in self.banks}
        self._extend(15, digests, text, "volume-key")

    def os_separator(self) -> None:
        for pcr in (*range(8), 9, 12, 13, 14):
            self.measure(pcr, "os-separator", "os-separator")

    def nvpcr(self, name: str, handle: int, *, secret: bytes | None = None) -> None:
        """Set up an NvPCR; with a secret as systemd 259 to 261 do, else as 262 does."""
        self.tpm.nv_define_extend(handle, ATTRIBUTES)
        first = bytes(32) if secret is None else hmac.digest(secret, handle.to_bytes(4, "little"), "sha256")
        self.tpm.nv_extend(handle, first)
        self._names[handle] = name
        if secret is None:
            rest = self.tpm.nv_name(handle).hex()
        else:
            rest = f"sha256:{hashlib.sha256(bytes(32) + first).hexdigest()}"
        self.measure(9, f"nvpcr-init:{name}:0x{handle:x}:{rest}", "nvpcr-init")

    def nvpcrs_done(self) -> None:
        self.measure(9, "nvpcr-separator", "nvpcr-separator")

    def nvpcr_extend(self, handle: int, text: str, label: str = "product-id") -> None:
        digest = hashlib.sha256(text.encode()).digest()
        self.tpm.nv_extend(handle, digest)
        named = (handle, self._names[handle])
        self.records.append(
            record({HashAlg.SHA256: digest}, text, label, nv=named, timestamp=len(self.records))
        )

    def boot(
        self, *, secret: bytes | None = None, encrypted: bool = False, machine_id: str = MACHINE_ID
    ) -> Systemd:
        """What an ordinary boot measures."""
        self.phase("enter-initrd")
        self.nvpcr("hardware", HARDWARE, secret=secret)
        self.nvpcr("cryptsetup", CRYPTSETUP, secret=secret)
        self.nvpcrs_done()
        if encrypted:
            self.volume_key()
            self.nvpcr_extend(
                CRYPTSETUP,
                "cryptsetup-keyslot:root:1e023a55-60f9-4b6b-9b80-67438dc5f065:tpm2:1",
                "keyslot",
            )
        self.phase("leave-initrd")
        self.nvpcr_extend(HARDWARE, PRODUCT)
        self.machine_id(machine_id)
        self.file_system()
        self.phase("sysinit", "ready")
        return self
