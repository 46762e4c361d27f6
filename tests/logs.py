"""Write boot logs for tests: crypto-agile (TCG_PCR_EVENT2) and SHA-1 (TCG_PCClientPCREvent) layouts.

TCG PC Client Platform Firmware Profile, revision 1.05, sections 10.2.1 and 10.2.2. All little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from verifier.tcg.algorithms import HashAlg

EV_NO_ACTION = 0x3
EV_SEPARATOR = 0x4
EV_IPL = 0xD
EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
EV_EFI_ACTION = 0x80000007

GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")


@dataclass(frozen=True, slots=True)
class Written:
    """One event to write. `measured` is what is hashed; the data itself when None."""

    pcr: int
    kind: int
    data: bytes
    measured: bytes | None = None


def spec_id(algs: Iterable[HashAlg] = (HashAlg.SHA1, HashAlg.SHA256)) -> bytes:
    algs = tuple(algs)
    body = b"Spec ID Event03\0" + struct.pack("<IBBBB", 0, 0, 2, 0, 2) + struct.pack("<I", len(algs))
    body += b"".join(struct.pack("<HH", alg.tpm_id, alg.size) for alg in algs) + b"\0"
    return struct.pack("<II20sI", 0, EV_NO_ACTION, bytes(20), len(body)) + body


def agile_event(event: Written, algs: Iterable[HashAlg] = (HashAlg.SHA1, HashAlg.SHA256)) -> bytes:
    algs = tuple(algs)
    measured = event.data if event.measured is None else event.measured
    out = struct.pack("<III", event.pcr, event.kind, len(algs))
    for alg in algs:
        digest = bytes(alg.size) if event.kind == EV_NO_ACTION else alg.digest(measured)
        out += struct.pack("<H", alg.tpm_id) + digest
    return out + struct.pack("<I", len(event.data)) + event.data


def agile_log(events: Iterable[Written], algs: Iterable[HashAlg] = (HashAlg.SHA1, HashAlg.SHA256)) -> bytes:
    algs = tuple(algs)
    return spec_id(algs) + b"".join(agile_event(event, algs) for event in events)


def sha1_log(events: Iterable[Written]) -> bytes:
    out = b""
    for event in events:
        measured = event.data if event.measured is None else event.measured
        digest = bytes(20) if event.kind == EV_NO_ACTION else HashAlg.SHA1.digest(measured)
        out += struct.pack("<II20sI", event.pcr, event.kind, digest, len(event.data)) + event.data
    return out


def variable(name: str, value: bytes, vendor: bytes = GLOBAL_VARIABLE) -> bytes:
    """UEFI_VARIABLE_DATA."""
    return vendor + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value


def secure_boot(*, on: bool, measured_on: bool | None = None) -> Written:
    """The SecureBoot variable; `measured_on` differs from `on` when the text lies."""
    measured = on if measured_on is None else measured_on
    return Written(
        7,
        EV_EFI_VARIABLE_DRIVER_CONFIG,
        variable("SecureBoot", bytes([on])),
        variable("SecureBoot", bytes([measured])),
    )


def separators() -> list[Written]:
    return [Written(pcr, EV_SEPARATOR, bytes(4)) for pcr in range(8)]


def ordinary_log(size: int = 41_000, count: int = 100) -> bytes:
    """A log of about `size` bytes and `count` events: firmware, Secure Boot variables, GRUB, kernel.

    Stands in for the 40 KB logs of real servers where none can be shipped.
    """
    head = [
        Written(0, 0x8, b"1\0\0\0"),
        secure_boot(on=True),
        *(
            Written(7, EV_EFI_VARIABLE_DRIVER_CONFIG, variable(name, bytes([number]) * length))
            for number, (name, length) in enumerate(
                (("PK", 1000), ("KEK", 3000), ("db", 4000), ("dbx", 20_000))
            )
        ),
        *separators(),
        Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"\x18" * 144, b"shim"),
        Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"\x18" * 84, b"grub"),
    ]
    commands = []
    while len(head) + len(commands) < count - 1:
        text = f"set variable_{len(commands)}='{'x' * 40}'"
        commands.append(Written(8, EV_IPL, f"grub_cmd: {text}\0".encode(), text.encode()))
    line = "/vmlinuz root=/dev/vda2 quiet"
    tail = [Written(8, EV_IPL, f"kernel_cmdline: {line}\0".encode(), line.encode())]
    log = agile_log([*head, *commands, *tail])
    filler = max(0, size - len(log) - 150)
    return log + agile_event(Written(1, EV_EFI_ACTION, b"f" * filler))
