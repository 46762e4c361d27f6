"""The evidence both sides get: a captured boot, a simulated TPM that quotes it, and a long IMA list."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.bench.fleet.guest import image
from tests.simulator import ECC_AK, RSA_AK, SoftwareTpm
from verifier.tcg.algorithms import HashAlg

IMAGE = "grub-sb-on"
PCRS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14)
NONCE = b"a-nonce-of-both!"
SELECTIONS = 16
"""Entries of a TPML_PCR_SELECTION as it lies in memory."""
_FOLDERS = (
    "/usr/bin",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/modules/6.1.0-18-amd64/kernel",
    "/usr/share/perl5",
)


@dataclass(frozen=True)
class Inputs:
    """What lies in the folder, for our side."""

    folder: Path
    log: bytes
    quotes: dict[str, tuple[bytes, bytes, bytes]]
    """By kind of AK: TPM2B_PUBLIC, TPMS_ATTEST, TPMT_SIGNATURE."""
    pcrs: dict[int, bytes]
    ima: bytes
    """ASCII list, template ima-ng."""
    pcr10: bytes
    digests: dict[str, bytes]
    """Path to SHA-256."""


def make(folder: Path, entries: int) -> Inputs:
    """Write the peer's inputs into `folder`, and keep ours."""
    log, _ = image(IMAGE)
    aggregate = None
    quotes, described = {}, {}
    for name, profile in (("rsa", RSA_AK), ("ecc", ECC_AK)):
        tpm = SoftwareTpm("peer", ak=profile)
        tpm.replay_log(log)
        values = tpm.pcrs(HashAlg.SHA256)
        aggregate = hashlib.sha256(b"".join(values[pcr] for pcr in range(10))).digest()
        attest, signature = tpm.quote(NONCE, {HashAlg.SHA256: PCRS})
        quotes[name] = (tpm.ak_public, attest, signature)
        blobs = (attest, signature, _in_memory({pcr: values[pcr] for pcr in PCRS}))
        described[name] = {
            "ak_tpm": base64.b64encode(tpm.ak_public).decode(),
            "nonce": NONCE.decode(),
            "quote": "r" + ":".join(base64.b64encode(blob).decode() for blob in blobs),
        }
    assert aggregate is not None
    ima, pcr10, digests = _ima(entries, aggregate)
    (folder / "quotes.json").write_text(json.dumps(described))
    golden = {str(pcr): [values[pcr].hex()] for pcr in PCRS}
    (folder / "golden.json").write_text(json.dumps(golden))
    (folder / "boot.log").write_bytes(log)
    (folder / "ima.txt").write_bytes(ima)
    (folder / "pcr10").write_text(pcr10.hex())
    (folder / "runtime.json").write_text(json.dumps(_peer_policy(digests)))
    return Inputs(folder, log, quotes, {pcr: values[pcr] for pcr in PCRS}, ima, pcr10, digests)


def _in_memory(values: dict[int, bytes]) -> bytes:
    """PCR selection and values as the TPM tools keep them: structures as they lie in memory, little-endian."""
    bits = sum(1 << pcr for pcr in values)
    one = struct.pack("<HB3sxx", 0x000B, 3, bits.to_bytes(3, "little"))
    selections = struct.pack("<I", 1) + one + bytes(8 * (SELECTIONS - 1))
    ordered = [values[pcr] for pcr in sorted(values)]
    lists = [ordered[start : start + 8] for start in range(0, len(ordered), 8)]
    packed = b"".join(
        struct.pack("<I", len(part))
        + b"".join(struct.pack("<H64s", len(value), value) for value in part)
        + bytes(66 * (8 - len(part)))
        for part in lists
    )
    return selections + struct.pack("<I", len(lists)) + packed


def _ima(count: int, aggregate: bytes) -> tuple[bytes, bytes, dict[str, bytes]]:
    dice = random.Random(20261128)
    digests = {"boot_aggregate": aggregate}
    while len(digests) < count:
        path = f"{dice.choice(_FOLDERS)}/part{dice.getrandbits(20):05x}/object{len(digests):06d}.so"
        digests[path] = hashlib.sha256(path.encode()).digest()
    lines, pcr10 = [], bytes(32)
    for path, digest in digests.items():
        named, name = b"sha256:\0" + digest, path.encode() + b"\0"
        data = struct.pack("<I", len(named)) + named + struct.pack("<I", len(name)) + name
        lines.append(f"10 {hashlib.sha1(data).hexdigest()} ima-ng sha256:{digest.hex()} {path}\n")
        pcr10 = hashlib.sha256(pcr10 + hashlib.sha256(data).digest()).digest()
    return "".join(lines).encode(), pcr10, digests


def _peer_policy(digests: dict[str, bytes]) -> dict[str, object]:
    """A runtime policy in Keylime's JSON (its documentation, "Runtime Policy")."""
    return {
        "meta": {"version": 1, "generator": 0, "timestamp": "2026-11-28 00:00:00"},
        "release": 0,
        "digests": {path: [digest.hex()] for path, digest in digests.items()},
        "excludes": [],
        "keyrings": {},
        "ima": {"ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": None},
        "ima-buf": {},
        "verification-keys": "",
    }
