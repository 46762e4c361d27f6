"""Device paths as text (UEFI 2.10, sections 10.3 and 10.6).

For people: nothing here is covered by the digest of an image load, so no rule may read it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Final

from verifier.errors import MalformedInputError
from verifier.tcg.guid import guid_text
from verifier.tcg.reader import Reader

STRUCTURE: Final = "EFI_DEVICE_PATH_PROTOCOL"
MAX_NODES: Final = 256

_HEADER_SIZE: Final = 4
_END_TYPE: Final = 0x7F
_END_INSTANCE: Final = 0x01
_END_ENTIRE: Final = 0xFF
_PNP_VENDOR: Final = 0x41D0
"""`PNP` as a compressed EISA id."""


def nodes(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, subtype and content of every node up to the end node; stops silently where the data just ends.

    Raises:
        MalformedInputError: a node's length does not fit.
    """
    offset = 0
    for _ in range(MAX_NODES):
        if len(data) - offset < _HEADER_SIZE:
            return
        kind, subtype = data[offset], data[offset + 1]
        length = int.from_bytes(data[offset + 2 : offset + 4], "little")
        if not _HEADER_SIZE <= length <= len(data) - offset:
            raise MalformedInputError(STRUCTURE, offset + 2, f"node length {length} does not fit")
        yield kind, subtype, data[offset + _HEADER_SIZE : offset + length]
        if kind == _END_TYPE and subtype == _END_ENTIRE:
            return
        offset += length
    raise MalformedInputError(STRUCTURE, offset, f"more than {MAX_NODES} nodes")


def device_path_text(data: bytes) -> str:
    r"""The path in the specification's text form, for example `PciRoot(0x0)/Pci(0x1,0x0)/\\EFI\\BOOT\\BOOTX64.EFI`.

    Raises:
        MalformedInputError: a node does not fit.
    """
    instances: list[list[str]] = [[]]
    for kind, subtype, content in nodes(data):
        if kind != _END_TYPE:
            instances[-1].append(_node_text(kind, subtype, content))
        elif subtype == _END_INSTANCE:
            instances.append([])
    return ",".join("/".join(instance) for instance in instances)


def _node_text(kind: int, subtype: int, content: bytes) -> str:
    describe = _NODES.get((kind, subtype))
    if describe is not None:
        try:
            return describe(Reader(content, STRUCTURE))
        except MalformedInputError:
            pass  # a short node is still worth showing, as bytes
    return f"Path({kind},{subtype},{content.hex()})"


def _rest(reader: Reader) -> bytes:
    return reader.take(reader.remaining)


def _utf16(data: bytes) -> str:
    return data.decode("utf-16-le", "replace").split("\0", 1)[0]


def _pci(reader: Reader) -> str:
    function, device = reader.u8(), reader.u8()
    return f"Pci(0x{device:x},0x{function:x})"


def _memory(reader: Reader) -> str:
    return f"MemoryMapped(0x{reader.u32le():x},0x{reader.u64le():x},0x{reader.u64le():x})"


def _vendor(name: str) -> Callable[[Reader], str]:
    def describe(reader: Reader) -> str:
        guid, data = guid_text(reader.take(16)), _rest(reader)
        return f"{name}({guid},{data.hex()})" if data else f"{name}({guid})"

    return describe


def _guid(name: str) -> Callable[[Reader], str]:
    return lambda reader: f"{name}({guid_text(reader.take(16))})"


def _acpi(reader: Reader) -> str:
    hid, uid = reader.u32le(), reader.u32le()
    if hid & 0xFFFF == _PNP_VENDOR:
        product = hid >> 16
        root = {0x0A03: "PciRoot", 0x0A08: "PcieRoot", 0x0604: "Floppy"}.get(product)
        return f"{root}(0x{uid:x})" if root else f"Acpi(PNP{product:04X},0x{uid:x})"
    return f"Acpi(0x{hid:08x},0x{uid:x})"


def _acpi_adr(reader: Reader) -> str:
    values = [f"0x{reader.u32le():x}" for _ in range(reader.remaining // 4)]
    return f"AcpiAdr({','.join(values)})"


def _ata(reader: Reader) -> str:
    secondary, slave, lun = reader.u8(), reader.u8(), reader.u16le()
    return f"Ata({'Secondary' if secondary else 'Primary'},{'Slave' if slave else 'Master'},0x{lun:x})"


def _pair(name: str, size: int) -> Callable[[Reader], str]:
    def describe(reader: Reader) -> str:
        first = int.from_bytes(reader.take(size), "little")
        second = int.from_bytes(reader.take(size), "little")
        return f"{name}(0x{first:x},0x{second:x})"

    return describe


def _single(name: str, size: int) -> Callable[[Reader], str]:
    return lambda reader: f"{name}(0x{int.from_bytes(reader.take(size), 'little'):x})"


def _mac(reader: Reader) -> str:
    address, kind = reader.take(32), reader.u8()
    length = 6 if kind in (0, 1) else 32
    return f"MAC({address[:length].hex()},0x{kind:x})"


def _ipv4(reader: Reader) -> str:
    reader.take(4)
    return f"IPv4({ipaddress.IPv4Address(reader.take(4))})"


def _ipv6(reader: Reader) -> str:
    reader.take(16)
    return f"IPv6({ipaddress.IPv6Address(reader.take(16))})"


def _uart(reader: Reader) -> str:
    reader.take(4)
    rate, bits, parity, stop = reader.u64le(), reader.u8(), reader.u8(), reader.u8()
    parities = {0: "D", 1: "N", 2: "E", 3: "O", 4: "M", 5: "S"}
    stops = {0: "D", 1: "1", 2: "1.5", 3: "2"}
    return f"Uart({rate},{bits},{parities.get(parity, parity)},{stops.get(stop, stop)})"


def _usb_class(reader: Reader) -> str:
    vendor, product = reader.u16le(), reader.u16le()
    return f"UsbClass(0x{vendor:x},0x{product:x},0x{reader.u8():x},0x{reader.u8():x},0x{reader.u8():x})"


def _usb_wwid(reader: Reader) -> str:
    interface, vendor, product = reader.u16le(), reader.u16le(), reader.u16le()
    return f'UsbWwid(0x{vendor:x},0x{product:x},0x{interface:x},"{_utf16(_rest(reader))}")'


def _sata(reader: Reader) -> str:
    return f"Sata(0x{reader.u16le():x},0x{reader.u16le():x},0x{reader.u16le():x})"


def _iscsi(reader: Reader) -> str:
    protocol, options, lun, group = reader.u16le(), reader.u16le(), reader.take(8), reader.u16le()
    name = _rest(reader).decode("utf-8", "replace").rstrip("\0")
    return f"iSCSI({name},0x{group:x},0x{lun.hex()},0x{options:x},0x{protocol:x})"


def _nvme(reader: Reader) -> str:
    namespace, eui = reader.u32le(), reader.take(8)
    return f"NVMe(0x{namespace:x},{'-'.join(f'{byte:02X}' for byte in reversed(eui))})"


def _text(name: str) -> Callable[[Reader], str]:
    return lambda reader: f"{name}({_rest(reader).decode('utf-8', 'replace').rstrip(chr(0))})"


def _sas_ex(reader: Reader) -> str:
    return (
        f"SasEx(0x{reader.take(8).hex()},0x{reader.take(8).hex()},0x{reader.u16le():x},0x{reader.u16le():x})"
    )


def _hard_drive(reader: Reader) -> str:
    number, start, size, signature = reader.u32le(), reader.u64le(), reader.u64le(), reader.take(16)
    _, kind = reader.u8(), reader.u8()
    if kind == 2:  # noqa: PLR2004 - SIGNATURE_TYPE_GUID
        return f"HD({number},GPT,{guid_text(signature)},0x{start:x},0x{size:x})"
    if kind == 1:
        return f"HD({number},MBR,0x{int.from_bytes(signature[:4], 'little'):08x},0x{start:x},0x{size:x})"
    return f"HD({number},{kind},{signature.hex()},0x{start:x},0x{size:x})"


def _cdrom(reader: Reader) -> str:
    return f"CDROM(0x{reader.u32le():x},0x{reader.u64le():x},0x{reader.u64le():x})"


def _offset(reader: Reader) -> str:
    reader.take(4)
    return f"Offset(0x{reader.u64le():x},0x{reader.u64le():x})"


def _ram_disk(reader: Reader) -> str:
    start, end, kind = reader.u64le(), reader.u64le(), guid_text(reader.take(16))
    return f"RamDisk(0x{start:x},0x{end:x},0x{reader.u16le():x},{kind})"


def _bbs(reader: Reader) -> str:
    kind, flags = reader.u16le(), reader.u16le()
    name = _rest(reader).decode("ascii", "replace").rstrip("\0")
    kinds = {1: "Floppy", 2: "HD", 3: "CDROM", 4: "PCMCIA", 5: "USB", 6: "Network"}
    return f"BBS({kinds.get(kind, f'0x{kind:x}')},{name},0x{flags:x})"


_NODES: Final[dict[tuple[int, int], Callable[[Reader], str]]] = {
    (1, 1): _pci,
    (1, 2): _single("PcCard", 1),
    (1, 3): _memory,
    (1, 4): _vendor("VenHw"),
    (1, 5): _single("Ctrl", 4),
    (2, 1): _acpi,
    (2, 3): _acpi_adr,
    (3, 1): _ata,
    (3, 2): _pair("Scsi", 2),
    (3, 5): _pair("USB", 1),
    (3, 10): _vendor("VenMsg"),
    (3, 11): _mac,
    (3, 12): _ipv4,
    (3, 13): _ipv6,
    (3, 14): _uart,
    (3, 15): _usb_class,
    (3, 16): _usb_wwid,
    (3, 17): _single("Unit", 1),
    (3, 18): _sata,
    (3, 19): _iscsi,
    (3, 20): _single("Vlan", 2),
    (3, 22): _sas_ex,
    (3, 23): _nvme,
    (3, 24): _text("Uri"),
    (3, 25): _pair("UFS", 1),
    (3, 26): _single("SD", 1),
    (3, 28): _text("Wi-Fi"),
    (3, 29): _single("eMMC", 1),
    (4, 1): _hard_drive,
    (4, 2): _cdrom,
    (4, 3): _vendor("VenMedia"),
    (4, 4): lambda reader: _utf16(_rest(reader)),
    (4, 5): _guid("Media"),
    (4, 6): _guid("FvFile"),
    (4, 7): _guid("Fv"),
    (4, 8): _offset,
    (4, 9): _ram_disk,
    (5, 1): _bbs,
}
