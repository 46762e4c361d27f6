"""UEFI structures that boot logs carry: variables, load options, image loads, partition tables.

All little-endian. Except `parse_variable`, which is on the hot path and answers None, every function raises
`MalformedInputError` for bytes that are not its structure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from verifier.errors import MalformedInputError
from verifier.tcg.guid import guid_bytes, guid_text
from verifier.tcg.reader import Reader

GLOBAL_VARIABLE: Final = guid_bytes("8be4df61-93ca-11d2-aa0d-00e098032b8c")
"""EFI_GLOBAL_VARIABLE (UEFI 2.10, section 3.3)."""
IMAGE_SECURITY_DATABASE: Final = guid_bytes("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
"""EFI_IMAGE_SECURITY_DATABASE_GUID (section 32.6.1)."""
SHIM_LOCK: Final = guid_bytes("605dab50-e046-4300-abb6-3dd810dd8b23")
"""Vendor of shim's variables."""

_VARIABLE: Final = struct.Struct("<16sQQ")
_new_variable: Final = tuple.__new__  # a named tuple's own constructor is a Python call
_PLAIN_VENDORS: Final = frozenset({GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, SHIM_LOCK})
GPT_SIGNATURE: Final = b"EFI PART"
_GPT_HEADER_SIZE: Final = 92
_MIN_PARTITION_ENTRY: Final = 128
_MAX_PARTITIONS: Final = 1024


class Variable(NamedTuple):
    """UEFI_VARIABLE_DATA (TCG PFP, section 10.2): vendor GUID as bytes, name, value."""

    vendor: bytes
    name: str
    value: bytes


def parse_variable(data: bytes) -> Variable | None:
    """The variable that `data` is exactly, or None. The name has no terminator."""
    if len(data) < _VARIABLE.size:
        return None
    vendor, characters, size = _VARIABLE.unpack_from(data)
    start = _VARIABLE.size + 2 * characters
    if start + size != len(data):
        return None
    try:
        name = data[_VARIABLE.size : start].decode("utf-16-le")
    except UnicodeDecodeError:
        return None
    return _new_variable(Variable, (vendor, name, data[start:]))


def variable_name(variable: Variable) -> str:
    """Plain for the vendors of UEFI and shim, else `Name-<vendor GUID>`: no vendor can pose as another."""
    if variable.vendor in _PLAIN_VENDORS:
        return variable.name
    return f"{variable.name}-{guid_text(variable.vendor)}"


@dataclass(frozen=True, slots=True)
class ImageLoad:
    """UEFI_IMAGE_LOAD_EVENT (TCG PFP, section 10.2.3): where an image was, never what it was."""

    address: int
    length: int
    link_address: int
    device_path: bytes


def parse_image_load(data: bytes) -> ImageLoad:
    """Decode the data of EV_EFI_BOOT_SERVICES_APPLICATION and its kin; shim logs a few bytes more."""
    reader = Reader(data, "UEFI_IMAGE_LOAD_EVENT")
    address, length, link_address = reader.u64le(), reader.u64le(), reader.u64le()
    size = reader.u64le("LengthOfDevicePath")
    path = reader.take(size, "DevicePath")
    return ImageLoad(address, length, link_address, path)


@dataclass(frozen=True, slots=True)
class LoadOption:
    """EFI_LOAD_OPTION (UEFI 2.10, section 3.1.3): a boot entry."""

    active: bool
    description: str
    device_path: bytes
    optional_data: bytes


def parse_load_option(data: bytes) -> LoadOption:
    """Decode the value of a `Boot####` variable."""
    reader = Reader(data, "EFI_LOAD_OPTION")
    attributes, size = reader.u32le("Attributes"), reader.u16le("FilePathListLength")
    rest = data[reader.offset :]
    end = next((at for at in range(0, len(rest) - 1, 2) if rest[at : at + 2] == b"\0\0"), None)
    if end is None:
        raise reader.error("the description has no end")
    description = reader.take(end, "Description").decode("utf-16-le", "replace")
    reader.take(2)
    path = reader.take(size, "FilePathList")
    return LoadOption(bool(attributes & 1), description, path, reader.take(reader.remaining))


def parse_boot_order(data: bytes) -> tuple[str, ...]:
    """Decode the value of `BootOrder` as names of boot variables."""
    if len(data) % 2:
        raise MalformedInputError("BootOrder", len(data), "an odd number of bytes")
    return tuple(f"Boot{number:04X}" for (number,) in struct.iter_unpack("<H", data))


@dataclass(frozen=True, slots=True)
class Partition:
    """One used entry of a GUID partition table (UEFI 2.10, section 5.3.3)."""

    type_guid: str
    guid: str
    first_lba: int
    last_lba: int
    attributes: int
    name: str


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """UEFI_GPT_DATA (TCG PFP, section 10.2): header and used entries of the boot disk."""

    disk_guid: str
    partitions: tuple[Partition, ...]


def parse_partition_table(data: bytes) -> PartitionTable:
    """Decode the data of EV_EFI_GPT_EVENT."""
    reader = Reader(data, "UEFI_GPT_DATA")
    header = reader.take(_GPT_HEADER_SIZE, "UEFIPartitionHeader")
    if not header.startswith(GPT_SIGNATURE):
        raise MalformedInputError(reader.structure, 0, "the header does not begin with 'EFI PART'")
    entry_size = int.from_bytes(header[84:88], "little")
    count = reader.u64le("NumberOfPartitions")
    if entry_size < _MIN_PARTITION_ENTRY or count > _MAX_PARTITIONS or count * entry_size > reader.remaining:
        raise reader.error(f"{count} entries of {entry_size} bytes do not fit")
    partitions = tuple(_partition(reader.take(entry_size, "Partition")) for _ in range(count))
    return PartitionTable(guid_text(header[56:72]), partitions)


def _partition(entry: bytes) -> Partition:
    first, last, attributes = struct.unpack_from("<QQQ", entry, 32)
    name = entry[56:128].decode("utf-16-le", "replace").split("\0", 1)[0]
    return Partition(guid_text(entry[:16]), guid_text(entry[16:32]), first, last, attributes, name)


@dataclass(frozen=True, slots=True)
class FirmwareBlob:
    """UEFI_PLATFORM_FIRMWARE_BLOB and its second version (TCG PFP, section 10.2)."""

    address: int
    length: int
    description: str


def parse_firmware_blob(data: bytes, *, described: bool) -> FirmwareBlob:
    """Decode an address and a length; with a description before them when `described`."""
    reader = Reader(data, "UEFI_PLATFORM_FIRMWARE_BLOB")
    text = reader.take(reader.u8(), "BlobDescription").decode("latin-1").rstrip("\0") if described else ""
    blob = FirmwareBlob(reader.u64le("BlobBase"), reader.u64le("BlobLength"), text)
    reader.finish()
    return blob


def parse_handoff_tables(data: bytes, *, described: bool) -> tuple[str, tuple[str, ...]]:
    """Decode UEFI_HANDOFF_TABLE_POINTERS (section 10.2): description and vendor GUIDs."""
    reader = Reader(data, "UEFI_HANDOFF_TABLE_POINTERS")
    text = reader.take(reader.u8(), "TableDescription").decode("latin-1").rstrip("\0") if described else ""
    count = reader.u64le("NumberOfTables")
    if count * 24 > reader.remaining:
        raise reader.error(f"{count} tables do not fit")
    guids = []
    for _ in range(count):
        guids.append(guid_text(reader.take(16)))
        reader.u64le("VendorTable")
    reader.finish()
    return text, tuple(guids)


def parse_tagged_event(data: bytes) -> tuple[int, bytes]:
    """Decode TCG_PCClientTaggedEvent: an id and as many bytes as it says."""
    reader = Reader(data, "TCG_PCClientTaggedEvent")
    tag, size = reader.u32le("taggedEventID"), reader.u32le("taggedEventDataSize")
    content = reader.take(size, "taggedEventData")
    reader.finish()
    return tag, content
