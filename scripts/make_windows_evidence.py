"""Make the Windows sample evidence of `policies/evidence/windows-*`: software TPMs that booted made-up Windows logs.

The logs have the records and registers of a real measured boot (SIPA in PCRs 12 and 13, closed by WBCL
separators) and take their Secure Boot variables from a captured boot; the digests of images are made up. Run it
again after a change here: the keys follow from a seed, so only the signatures differ.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from pathlib import Path

from tests.logs import EV_EFI_BOOT_SERVICES_APPLICATION, EV_SEPARATOR, Written, agile_log, separators
from tests.simulator import SoftwareTpm
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import parse_event_log
from verifier.tcg.windows import Sipa

EVIDENCE = Path(__file__).resolve().parent.parent / "policies" / "evidence"
EV_EVENT_TAG = 0x6
EV_EFI_VARIABLE_AUTHORITY = 0x800000E0
EFI_IMAGE_SECURITY_DATABASE = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
DB_EVENT = 7
"""The measured `db` in the captured boot whose variables are taken over."""
PCRS = tuple(range(15))
Record = tuple[int, bytes]

GOOD: dict[int, bytes] = {
    Sipa.BOOTDEBUGGING: b"\0",
    Sipa.OSKERNELDEBUG: b"\0",
    Sipa.HYPERVISOR_DEBUG: b"\0",
    Sipa.TESTSIGNING: b"\0",
    Sipa.SAFEMODE: b"\0",
    Sipa.WINPE: b"\0",
    Sipa.CODEINTEGRITY: b"\x01",
    Sipa.DATAEXECUTIONPREVENTION: b"\x01",
    Sipa.BITLOCKER_UNLOCK: struct.pack("<I", 4),
    Sipa.HYPERVISOR_LAUNCH_TYPE: struct.pack("<Q", 1),
    Sipa.VSM_LAUNCH_TYPE: struct.pack("<Q", 1),
    Sipa.VBS_HVCI_POLICY: struct.pack("<Q", 1),
    Sipa.LSAISO_CONFIG: struct.pack("<I", 2),
    Sipa.HIBERNATION_DISABLED: b"\0",
    Sipa.TRANSFER_CONTROL: struct.pack("<I", 1),
    Sipa.BOOTCOUNTER: struct.pack("<Q", 71),
    Sipa.EVENTCOUNTER: struct.pack("<Q", 1536),
}
SCENARIOS: dict[str, dict[int, bytes]] = {
    "windows-sb-on": {},
    "windows-test-signing": {Sipa.TESTSIGNING: b"\x01"},
    "windows-kernel-debugging": {Sipa.OSKERNELDEBUG: b"\x01", Sipa.BOOTDEBUGGING: b"\x01"},
    "windows-recovery-unlock": {Sipa.BITLOCKER_UNLOCK: struct.pack("<I", 0x40)},
}


def record(kind: int, content: bytes) -> bytes:
    """A SIPA record: type and length, little-endian, then the content."""
    return struct.pack("<II", kind, len(content)) + content


def module(path: str) -> Record:
    """A loaded image: path, hash algorithm, Authenticode digest."""
    digest = HashAlg.SHA256.digest(path.encode())
    name = record(Sipa.FILEPATH, path.encode("utf-16-le") + b"\0\0")
    algorithm = record(Sipa.HASHALGORITHMID, struct.pack("<I", 0x800C))
    return Sipa.LOADEDMODULE_AGGREGATION, name + algorithm + record(Sipa.AUTHENTICODEHASH, digest)


def boundary(*records: Record) -> bytes:
    """A trust boundary around records."""
    return record(Sipa.TRUSTBOUNDARY, b"".join(record(kind, content) for kind, content in records))


def windows_log(changes: dict[int, bytes]) -> bytes:
    """A boot of Windows with these flags."""
    captured = parse_event_log((EVIDENCE / "grub-sb-on" / "binary_bios_measurements").read_bytes()).events
    variables = [Written(event.pcr, event.event_type, event.data) for event in captured[4:9]]
    flags = tuple((GOOD | changes).items())
    elam = (
        Sipa.ELAM_AGGREGATION,
        record(Sipa.ELAM_KEYNAME, "Windows Defender".encode("utf-16-le") + b"\0\0"),
    )
    images = [
        module(f"\\Windows\\System32\\{name}")
        for name in ("winload.efi", "ntoskrnl.exe", "hal.dll", "ci.dll")
    ]
    return agile_log(
        [
            Written(0, 0x8, "VMW71.00V.Sample".encode("utf-16-le") + b"\0\0"),
            *variables,
            *separators(),
            Written(7, EV_EFI_VARIABLE_AUTHORITY, authority(captured[DB_EVENT].data)),
            Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"bootmgfw.efi", b"bootmgfw"),
            Written(12, EV_EVENT_TAG, boundary(*flags, elam)),
            Written(13, EV_EVENT_TAG, boundary(*flags, *images)),
            Written(12, EV_SEPARATOR, b"WBCL"),
            Written(13, EV_SEPARATOR, b"WBCL"),
        ]
    )


def authority(db: bytes) -> bytes:
    """The entry of `db` for Windows itself, as firmware measures it when that entry let an image run."""
    name = "db".encode("utf-16-le")
    content = db[32 + len(name) :]
    size = struct.unpack_from("<I", content, 16)[
        0
    ]  # EFI_SIGNATURE_LIST: type, list size, header size, entry size
    entry = content[28:size]
    return EFI_IMAGE_SECURITY_DATABASE + struct.pack("<QQ", 2, len(entry)) + name + entry


def bundle(name: str, log: bytes) -> dict[str, object]:
    """What `attest-agent collect` would have written in that guest."""
    tpm = SoftwareTpm(f"sample {name}")
    tpm.replay_log(log)
    nonce = HashAlg.SHA256.digest(name.encode())
    attest, signature = tpm.quote(nonce, {HashAlg.SHA256: PCRS})
    values = tpm.pcrs(HashAlg.SHA256)
    return {
        "format": "vtpm-attest/bundle/1",
        "nonce": nonce.hex(),
        "ak_public": _b64(tpm.ak_public),
        "ek_public": _b64(tpm.ek_public),
        "ek_certificates": [_b64(tpm.ek_certificate)],
        "quote": {"attest": _b64(attest), "signature": _b64(signature)},
        "pcrs": {"sha256": {str(pcr): values[pcr].hex() for pcr in PCRS}},
        "boot_log": _b64(log),
        "identity": {"hostname": name, "os": "Windows"},
        "kernel_command_line": None,
        "boot_id": None,
        "collected_at": "2026-11-24T00:00:00Z",
    }


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def main() -> int:
    """Write every scenario."""
    for name, changes in SCENARIOS.items():
        folder = EVIDENCE / name
        folder.mkdir(exist_ok=True)
        document = bundle(name, windows_log(changes))
        (folder / "bundle.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
