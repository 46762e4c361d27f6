"""UEFI structures: variables, signature lists, load options, images, partitions, device paths."""

from __future__ import annotations

import struct

import pytest

from tests.logs import GLOBAL_VARIABLE, variable
from verifier.errors import MalformedInputError
from verifier.tcg import uefi
from verifier.tcg.devicepath import MAX_NODES, device_path_text
from verifier.tcg.guid import guid_bytes, guid_text
from verifier.tcg.signature_list import parse_signature, parse_signature_lists

GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
SHA256_LIST = guid_bytes("c1c41626-504c-4092-aca9-41f936934328")


def node(kind: int, subtype: int, content: bytes = b"") -> bytes:
    return struct.pack("<BBH", kind, subtype, len(content) + 4) + content


END = node(0x7F, 0xFF)


def wide(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


# --- GUIDs and variables


def test_guids_are_mixed_endian() -> None:
    assert guid_text(GLOBAL_VARIABLE) == GUID
    assert guid_bytes(GUID) == GLOBAL_VARIABLE == uefi.GLOBAL_VARIABLE


def test_a_variable_is_exactly_its_structure() -> None:
    data = variable("SecureBoot", b"\x01")
    parsed = uefi.parse_variable(data)
    assert parsed == (GLOBAL_VARIABLE, "SecureBoot", b"\x01")
    assert uefi.parse_variable(data + b"\0") is None
    assert uefi.parse_variable(data[:-1]) is None
    assert uefi.parse_variable(data[:31]) is None
    overflow = GLOBAL_VARIABLE + struct.pack("<QQ", 2**63, 0)
    assert uefi.parse_variable(overflow) is None
    surrogate = GLOBAL_VARIABLE + struct.pack("<QQ", 1, 0) + b"\x00\xd8"
    assert uefi.parse_variable(surrogate) is None


def test_only_the_vendors_of_uefi_and_shim_have_plain_names() -> None:
    for vendor in (uefi.GLOBAL_VARIABLE, uefi.IMAGE_SECURITY_DATABASE, uefi.SHIM_LOCK):
        assert uefi.variable_name(uefi.Variable(vendor, "db", b"")) == "db"
    other = uefi.Variable(bytes(16), "db", b"")
    assert uefi.variable_name(other) == "db-00000000-0000-0000-0000-000000000000"


# --- signature lists


def signature_list(entries: list[bytes], *, kind: bytes = SHA256_LIST, header: bytes = b"") -> bytes:
    size = len(entries[0]) + 16 if entries else 48
    body = b"".join(bytes(16) + entry for entry in entries)
    return kind + struct.pack("<III", 28 + len(header) + len(body), len(header), size) + header + body


def test_signature_lists_give_every_entry_in_order() -> None:
    lists = signature_list([b"a" * 32, b"b" * 32]) + signature_list([b"der"], kind=bytes(16), header=b"?")
    entries = parse_signature_lists(lists)
    assert [(entry.kind, entry.data) for entry in entries] == [
        ("sha256", b"a" * 32),
        ("sha256", b"b" * 32),
        ("00000000-0000-0000-0000-000000000000", b"der"),
    ]
    assert parse_signature_lists(b"") == ()
    assert parse_signature_lists(signature_list([])) == ()


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (SHA256_LIST, 16),
        (SHA256_LIST + struct.pack("<III", 27, 0, 48), 16),
        (SHA256_LIST + struct.pack("<III", 28 + 48, 0, 16) + bytes(48), 16),
        (SHA256_LIST + struct.pack("<III", 28 + 48, 0, 0) + bytes(48), 16),
        (SHA256_LIST + struct.pack("<III", 28 + 48, 0, 47) + bytes(48), 16),
        (SHA256_LIST + struct.pack("<III", 28 + 48, 0xFFFFFFFF, 48) + bytes(48), 16),
        (SHA256_LIST + struct.pack("<III", 28 + 48, 0, 48) + bytes(47), 28),
    ],
)
def test_signature_lists_whose_sizes_lie_are_refused(data: bytes, offset: int) -> None:
    with pytest.raises(MalformedInputError) as raised:
        parse_signature_lists(data)
    assert raised.value.offset == offset


def test_a_single_signature_is_an_owner_and_the_rest() -> None:
    assert parse_signature(GLOBAL_VARIABLE + b"der") == (GLOBAL_VARIABLE, b"der")
    with pytest.raises(MalformedInputError):
        parse_signature(b"short")


# --- load options, boot order, images


def test_a_boot_entry_has_a_description_a_path_and_options() -> None:
    path = node(4, 4, wide("\\EFI\\BOOT\\BOOTX64.EFI")) + END
    data = struct.pack("<IH", 1, len(path)) + wide("debian") + path + b"options"
    option = uefi.parse_load_option(data)
    assert (option.active, option.description, option.optional_data) == (True, "debian", b"options")
    assert device_path_text(option.device_path) == "\\EFI\\BOOT\\BOOTX64.EFI"
    assert not uefi.parse_load_option(struct.pack("<IH", 0, 0) + b"\0\0").active


@pytest.mark.parametrize(
    "data", [b"", b"\1\0\0\0\0", struct.pack("<IH", 1, 0) + b"a\0b", struct.pack("<IH", 1, 9) + wide("x")]
)
def test_a_boot_entry_that_does_not_fit_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInputError):
        uefi.parse_load_option(data)


def test_the_boot_order_names_boot_variables() -> None:
    assert uefi.parse_boot_order(b"\x01\0\x0a\x20") == ("Boot0001", "Boot200A")
    with pytest.raises(MalformedInputError):
        uefi.parse_boot_order(b"\x01")


def test_an_image_load_says_where_the_image_was() -> None:
    path = node(4, 4, wide("\\x.efi")) + END
    data = struct.pack("<QQQQ", 0x1000, 0x2000, 0, len(path)) + path
    image = uefi.parse_image_load(data)
    assert (image.address, image.length, image.device_path) == (0x1000, 0x2000, path)
    assert uefi.parse_image_load(data + bytes(8)) == image  # shim logs a few bytes more
    with pytest.raises(MalformedInputError):
        uefi.parse_image_load(struct.pack("<QQQQ", 0, 0, 0, 2**63))


# --- partition tables, blobs, tables, tagged events


def partition_table(count: int, entries: bytes, size: int = 128) -> bytes:
    header = b"EFI PART" + bytes(48) + GLOBAL_VARIABLE + bytes(12) + struct.pack("<II", size, 0)
    return header + struct.pack("<Q", count) + entries


def test_a_partition_table_lists_the_used_entries() -> None:
    entry = bytes(16) + GLOBAL_VARIABLE + struct.pack("<QQQ", 2048, 4095, 1) + wide("esp").ljust(72, b"\0")
    table = uefi.parse_partition_table(partition_table(1, entry))
    assert table.disk_guid == GUID
    (partition,) = table.partitions
    assert (partition.guid, partition.first_lba, partition.last_lba, partition.name) == (
        GUID,
        2048,
        4095,
        "esp",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"EFI PART",
        b"NOT PART" + partition_table(0, b"")[8:],
        partition_table(1, bytes(127)),
        partition_table(2**63, bytes(128)),
        partition_table(2000, bytes(128 * 2000)),
        partition_table(1, bytes(128), size=64),
        partition_table(1, bytes(128), size=0),
    ],
)
def test_a_partition_table_that_does_not_fit_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInputError):
        uefi.parse_partition_table(data)


def test_firmware_blobs_are_an_address_and_a_length() -> None:
    blob = uefi.parse_firmware_blob(struct.pack("<QQ", 0x820000, 0xE0000), described=False)
    assert (blob.address, blob.length, blob.description) == (0x820000, 0xE0000, "")
    data = b"\x04POST" + struct.pack("<QQ", 1, 2)
    assert uefi.parse_firmware_blob(data, described=True).description == "POST"
    for bad in (data[:-1], data + b"\0", b"\xff"):
        with pytest.raises(MalformedInputError):
            uefi.parse_firmware_blob(bad, described=True)


def test_handoff_tables_are_vendors_and_pointers() -> None:
    table = struct.pack("<Q", 1) + GLOBAL_VARIABLE + bytes(8)
    assert uefi.parse_handoff_tables(table, described=False) == ("", (GUID,))
    assert uefi.parse_handoff_tables(b"\x04SMBI" + table, described=True) == ("SMBI", (GUID,))
    for bad in (b"", struct.pack("<Q", 2**60), table + b"\0"):
        with pytest.raises(MalformedInputError):
            uefi.parse_handoff_tables(bad, described=False)


def test_a_tagged_event_is_an_id_and_exactly_its_data() -> None:
    assert uefi.parse_tagged_event(struct.pack("<II", 7, 2) + b"ab") == (7, b"ab")
    for bad in (struct.pack("<II", 7, 3) + b"ab", struct.pack("<II", 7, 1) + b"ab", b"1234"):
        with pytest.raises(MalformedInputError):
            uefi.parse_tagged_event(bad)


# --- device paths

_HD = struct.pack("<IQQ", 1, 0x800, 0x14000) + GLOBAL_VARIABLE


@pytest.mark.parametrize(
    ("kind", "subtype", "content", "text"),
    [
        (1, 1, b"\x02\x1f", "Pci(0x1f,0x2)"),
        (1, 2, b"\x03", "PcCard(0x3)"),
        (1, 3, struct.pack("<IQQ", 11, 0x1000, 0x1FFF), "MemoryMapped(0xb,0x1000,0x1fff)"),
        (1, 4, GLOBAL_VARIABLE, f"VenHw({GUID})"),
        (1, 4, GLOBAL_VARIABLE + b"\xab", f"VenHw({GUID},ab)"),
        (1, 5, struct.pack("<I", 9), "Ctrl(0x9)"),
        (2, 1, struct.pack("<II", 0x0A0341D0, 0), "PciRoot(0x0)"),
        (2, 1, struct.pack("<II", 0x0A0841D0, 1), "PcieRoot(0x1)"),
        (2, 1, struct.pack("<II", 0x050141D0, 1), "Acpi(PNP0501,0x1)"),
        (2, 1, struct.pack("<II", 0x12345678, 1), "Acpi(0x12345678,0x1)"),
        (2, 3, struct.pack("<II", 1, 2), "AcpiAdr(0x1,0x2)"),
        (3, 1, struct.pack("<BBH", 1, 0, 0), "Ata(Secondary,Master,0x0)"),
        (3, 2, struct.pack("<HH", 1, 2), "Scsi(0x1,0x2)"),
        (3, 5, b"\x01\x02", "USB(0x1,0x2)"),
        (3, 11, bytes.fromhex("525400123456") + bytes(26) + b"\x01", "MAC(525400123456,0x1)"),
        (3, 12, bytes(4) + bytes([192, 0, 2, 1]) + bytes(11), "IPv4(192.0.2.1)"),
        (3, 13, bytes(16) + bytes(15) + b"\x01" + bytes(21), "IPv6(::1)"),
        (3, 14, bytes(4) + struct.pack("<QBBB", 115200, 8, 1, 1), "Uart(115200,8,N,1)"),
        (3, 15, struct.pack("<HHBBB", 1, 2, 3, 4, 5), "UsbClass(0x1,0x2,0x3,0x4,0x5)"),
        (3, 16, struct.pack("<HHH", 0, 1, 2) + wide("serial"), 'UsbWwid(0x1,0x2,0x0,"serial")'),
        (3, 17, b"\x04", "Unit(0x4)"),
        (3, 18, struct.pack("<HHH", 0, 0xFFFF, 0), "Sata(0x0,0xffff,0x0)"),
        (
            3,
            19,
            struct.pack("<HH8sH", 0, 0, bytes(8), 1) + b"iqn.x\0",
            "iSCSI(iqn.x,0x1,0x0000000000000000,0x0,0x0)",
        ),
        (3, 20, struct.pack("<H", 100), "Vlan(0x64)"),
        (3, 22, bytes(16) + struct.pack("<HH", 1, 2), "SasEx(0x0000000000000000,0x0000000000000000,0x1,0x2)"),
        (3, 23, struct.pack("<I", 1) + bytes(range(8)), "NVMe(0x1,07-06-05-04-03-02-01-00)"),
        (3, 24, b"http://boot/x.efi", "Uri(http://boot/x.efi)"),
        (4, 1, _HD + b"\x02\x02", f"HD(1,GPT,{GUID},0x800,0x14000)"),
        (4, 1, _HD + b"\x01\x01", "HD(1,MBR,0x8be4df61,0x800,0x14000)"),
        (4, 1, _HD + b"\x01\x00", f"HD(1,0,{GLOBAL_VARIABLE.hex()},0x800,0x14000)"),
        (4, 2, struct.pack("<IQQ", 0, 1, 2), "CDROM(0x0,0x1,0x2)"),
        (4, 4, wide("\\EFI\\x.efi"), "\\EFI\\x.efi"),
        (4, 6, GLOBAL_VARIABLE, f"FvFile({GUID})"),
        (4, 7, GLOBAL_VARIABLE, f"Fv({GUID})"),
        (4, 8, bytes(4) + struct.pack("<QQ", 1, 2), "Offset(0x1,0x2)"),
        (4, 9, struct.pack("<QQ", 1, 2) + GLOBAL_VARIABLE + b"\0\0", f"RamDisk(0x1,0x2,0x0,{GUID})"),
        (5, 1, struct.pack("<HH", 2, 0) + b"disk\0", "BBS(HD,disk,0x0)"),
        (5, 1, struct.pack("<HH", 0x80, 0) + b"net\0", "BBS(0x80,net,0x0)"),
        (3, 99, b"\x01", "Path(3,99,01)"),
        (1, 1, b"\x02", "Path(1,1,02)"),
    ],
)
def test_device_path_nodes_have_the_specifications_text(
    kind: int, subtype: int, content: bytes, text: str
) -> None:
    assert device_path_text(node(kind, subtype, content) + END) == text


def test_nodes_are_joined_and_instances_listed() -> None:
    first = node(2, 1, struct.pack("<II", 0x0A0341D0, 0)) + node(1, 1, b"\x00\x01")
    both = first + node(0x7F, 0x01) + node(3, 17, b"\x02") + END
    assert device_path_text(both) == "PciRoot(0x0)/Pci(0x1,0x0),Unit(0x2)"
    assert device_path_text(first) == "PciRoot(0x0)/Pci(0x1,0x0)"
    assert device_path_text(b"") == ""
    assert device_path_text(END + b"behind the end") == ""


def test_a_device_path_whose_lengths_lie_is_refused() -> None:
    for data in (b"\x01\x01\x03\x00", b"\x01\x01\x00\x00", b"\x01\x01\xff\xff" + bytes(8)):
        with pytest.raises(MalformedInputError) as raised:
            device_path_text(data)
        assert raised.value.offset == 2
    with pytest.raises(MalformedInputError, match="more than"):
        device_path_text(node(1, 1, b"\0\0") * (MAX_NODES + 1))
