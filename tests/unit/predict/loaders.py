"""Stand-ins for shim, GRUB, kernels and unified kernel images: what prediction reads of them, and nothing else."""

from __future__ import annotations

import struct

from tests import pe

SBAT = b"sbat,1,2025021800\nshim,4\ngrub,5\n"
LATEST = b"sbat,1,2025051000\nshim,4\n"
CODE = pe.Part(".text", pe.NOTHING)


def sbat_level(automatic: bytes = SBAT) -> bytes:
    texts = automatic + b"\0" + LATEST + b"\0"
    return struct.pack("<III", 0, 8, 8 + len(automatic) + 1) + texts


def shim(
    vendor: bytes,
    *,
    version: str = "16.1",
    forbidden: bytes = b"",
    ident: bytes | None = None,
    level: bytes | None = None,
) -> bytes:
    table = struct.pack("<IIII", len(vendor), len(forbidden), 16, 16 + len(vendor)) + vendor + forbidden
    names = [".vendor_cert", ".sbatlevel", ".data.ident"]
    said = ident if ident is not None else f"UEFI SHIM\n$Version: {version} $\n".encode()
    parts = [
        CODE,
        pe.Part("/0", table),
        pe.Part("/1", level if level is not None else sbat_level()),
        pe.Part("/2", said),
    ]
    return pe.build(pe.Shape(parts=parts, long_names=names))


def grub() -> bytes:
    return pe.build(pe.Shape(parts=[CODE, pe.Part("mods", b"modules")]))


def kernel(version: str = "6.1.0-55-cloud-amd64") -> bytes:
    """An image with the Linux/x86 setup header where the boot protocol has it."""
    image = bytearray(pe.build(pe.Shape(parts=[pe.Part(".text", b"\xcc" * 0x400)], lfanew=0x40)))
    start = 0x300
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = struct.pack("<H", start - 0x200)
    text = version.encode() + b" (builder) #1 SMP\0"
    image[start : start + len(text)] = text
    return bytes(image)


def stub(version: int = 252, *, text: str | None = None, code: bytes = pe.NOTHING) -> list[pe.Part]:
    magic = text if text is not None else f"#### LoaderInfo: systemd-stub {version}.39-1~deb12u2 ####"
    return [
        pe.Part(".text", code),
        pe.Part(".sbat", b"sbat,1,SBAT Version\n"),
        pe.Part(".sdmagic", magic.encode() + b"\0"),
    ]


def uki(
    version: int = 252,
    *,
    parts: list[pe.Part] | None = None,
    kernel_image: bytes | None = None,
    code: bytes = pe.NOTHING,
) -> bytes:
    sections = parts if parts is not None else [
        pe.Part(".osrel", b"ID=lab\n"),
        pe.Part(".cmdline", b"root=/dev/vda2 quiet"),
        pe.Part(".uname", b"6.1"),
        pe.Part(".initrd", b"initrd!"),
    ]  # fmt: skip
    linux = [] if kernel_image == b"" else [pe.Part(".linux", kernel_image or kernel())]
    return pe.build(pe.Shape(parts=[*stub(version, code=code), *sections, *linux]))


CODE_IMAGE = pe.build(pe.Shape(parts=[CODE, pe.Part(".data", b"loader")]))
