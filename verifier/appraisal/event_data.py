"""Event data for people: what each event says, whether or not anything proves it.

The result is display only. It shows labels and unbound data too, so nothing may judge by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from verifier.crypto.cert_reader import parse_certificate
from verifier.errors import EvidenceError
from verifier.tcg import uefi
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.devicepath import device_path_text
from verifier.tcg.event_types import EventType
from verifier.tcg.guid import guid_text
from verifier.tcg.preimage import SHIM_EXCESS
from verifier.tcg.reader import Reader
from verifier.tcg.signature_list import Signature, parse_signature, parse_signature_lists
from verifier.tcg.windows import SIPA_NAMES, Record, parse_sipa

Described = dict[str, object]

MAX_SHOWN_BYTES: Final = 64
"""Longer undecoded data is cut to this many bytes; the whole is in the log."""
_SIGNATURE_DATABASES: Final = frozenset({"PK", "KEK", "db", "dbx", "dbt", "dbr", "MokListRT", "MokListXRT"})
_NUMBER_SIZES: Final = (1, 2, 4, 8)
_BOOT_ENTRY_LENGTH: Final = len("Boot0000")


def describe(event_type: int, data: bytes) -> Described:
    """The data of one event, decoded as its type says; `problem` names what does not decode. Never raises."""
    rule = _RULES.get(event_type, _raw)
    try:
        return rule(data)
    except EvidenceError as error:
        return {**_raw(data), "problem": str(error)}


def _raw(data: bytes) -> Described:
    text = _printable(data)
    if text is not None:
        return {"text": text}
    shown: Described = {"hex": data[:MAX_SHOWN_BYTES].hex(), "size": len(data)}
    return {**shown, "cut": True} if len(data) > MAX_SHOWN_BYTES else shown


def _printable(data: bytes) -> str | None:
    """UTF-8 text of `data`, or UTF-16 where it looks Western; terminators removed. None where it is not text."""
    try:
        text = data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-8").rstrip("\0")
    except UnicodeDecodeError:
        return None
    return text if text and all(char.isprintable() or char in "\n\t" for char in text) else None


def _separator(data: bytes) -> Described:
    meanings = {bytes(4): "none", b"\xff" * 4: "none", b"\x01\0\0\0": "firmware reported an error"}
    return {**_raw(data), "error": meanings.get(data, "unknown value")}


def _variable(data: bytes) -> Described:
    variable = uefi.parse_variable(data) or uefi.parse_variable(data[:-SHIM_EXCESS])
    if variable is None:
        return {**_raw(data), "problem": "the sizes of UEFI_VARIABLE_DATA do not add up"}
    shown: Described = {
        "variable": variable.name,
        "vendor": guid_text(variable.vendor),
        "size": len(variable.value),
    }
    try:
        shown |= _value(variable)
    except EvidenceError as error:
        shown |= {"value": _raw(variable.value), "problem": str(error)}
    return shown


def _value(variable: uefi.Variable) -> Described:
    name, value = variable.name, variable.value
    if name in _SIGNATURE_DATABASES:
        return _database(value)
    if name == "BootOrder":
        return {"order": list(uefi.parse_boot_order(value))}
    if name.startswith("Boot") and len(name) == _BOOT_ENTRY_LENGTH:
        return _load_option(value)
    if len(value) == 1:
        return {"value": value[0]}
    return {"value": _raw(value)}


def _database(value: bytes) -> Described:
    signatures = parse_signature_lists(value)
    return {"entries": len(signatures), "signatures": [_signature(signature) for signature in signatures]}


def _signature(signature: Signature) -> Described:
    shown: Described = {"type": signature.kind, "owner": guid_text(signature.owner)}
    return shown | (
        _certificate(signature.data) if signature.kind == "x509" else {"hex": signature.data.hex()}
    )


def _certificate(der: bytes) -> Described:
    shown: Described = {"sha256": HashAlg.SHA256.digest(der).hex()}
    try:
        certificate = parse_certificate(der)
    except EvidenceError as error:
        return {**shown, "problem": str(error)}
    return {**shown, "subject": certificate.subject_text, "issuer": certificate.issuer_text}


def _authority(data: bytes) -> Described:
    shown = _variable(data)
    variable = uefi.parse_variable(data) or uefi.parse_variable(data[:-SHIM_EXCESS])
    if variable is None or variable.name not in {"db", "dbx", "MokListRT", "Shim", "MokList", "vendor_db"}:
        return shown
    shown.pop("value", None)
    shown.pop("problem", None)
    der, owner = variable.value, None
    if not der.startswith(b"\x30\x82"):
        raw_owner, der = parse_signature(variable.value)
        owner = guid_text(raw_owner)
    authority = _certificate(der) if der.startswith(b"\x30") else {"hex": der.hex()}
    return shown | {"owner": owner, "authority": authority}


def _load_option(value: bytes) -> Described:
    option = uefi.parse_load_option(value)
    return {
        "description": option.description,
        "active": option.active,
        "device_path": device_path_text(option.device_path),
        "optional_data": _raw(option.optional_data) if option.optional_data else None,
    }


def _image(data: bytes) -> Described:
    image = uefi.parse_image_load(data)
    return {
        "device_path": device_path_text(image.device_path),
        "address": f"0x{image.address:x}",
        "length": image.length,
    }


def _partition_table(data: bytes) -> Described:
    table = uefi.parse_partition_table(data)
    return {
        "disk": table.disk_guid,
        "partitions": [
            {
                "name": partition.name,
                "type": partition.type_guid,
                "guid": partition.guid,
                "first_lba": partition.first_lba,
                "last_lba": partition.last_lba,
            }
            for partition in table.partitions
        ],
    }


def _blob(data: bytes, *, described: bool) -> Described:
    blob = uefi.parse_firmware_blob(data, described=described)
    return {"address": f"0x{blob.address:x}", "length": blob.length, "description": blob.description or None}


def _blob1(data: bytes) -> Described:
    return _blob(data, described=False)


def _blob2(data: bytes) -> Described:
    return _blob(data, described=True)


def _tables(data: bytes, *, described: bool) -> Described:
    text, guids = uefi.parse_handoff_tables(data, described=described)
    return {"tables": list(guids), "description": text or None}


def _tables1(data: bytes) -> Described:
    return _tables(data, described=False)


def _tables2(data: bytes) -> Described:
    return _tables(data, described=True)


def _platform_flags(data: bytes) -> Described:
    """td-shim: a name of 16 bytes, a length, and what was measured; of others, as it is."""
    if not data.startswith(b"td_"):
        return _raw(data)
    reader = Reader(data, "td-shim event")
    name = reader.take(16, "signature").rstrip(b"\0").decode("ascii", "replace")
    return {
        "description": name,
        "content": _raw(reader.take(reader.u32le("length"), "content").rstrip(b"\0")),
    }


def _tagged(data: bytes) -> Described:
    if SIPA_NAMES.get(int.from_bytes(data[:4], "little")) is not None:
        return {"records": [_record(record) for record in parse_sipa(data)]}
    tag, content = uefi.parse_tagged_event(data)
    named: Described = {"tag_name": _TAGS[tag]} if tag in _TAGS else {}
    return {"tag": f"0x{tag:08x}", **named, **_raw(content)}


_TAGS: Final = {
    0x8F3B22EC: "Linux EFI stub: initrd",
    0x8F3B22ED: "Linux EFI stub: command line",
    0xF5BC582A: "systemd-boot: loader.conf",
    0x6C46F751: "systemd-stub: devicetree addon",
    0x49DFFE0F: "systemd-stub: initrd addon",
    0xDAC08E1A: "systemd-stub: microcode addon",
    0x13AED6DB: "systemd-stub: profile of the image",
    0xD5CB7CBC: "systemd-boot: SMBIOS type 1",
    0xE0D47BC8: "systemd-boot: SMBIOS type 2",
    0xC0B3BD23: "systemd-boot: SMBIOS type 11",
    0x4141454C: "attestation agent of the guest (AAEL)",
}
"""Tags of EV_EVENT_TAG that are no records of Windows; as everywhere, a tag is a label."""


def _loader(data: bytes) -> Described:
    """EV_IPL: text of a boot loader; some put bytes behind its end."""
    wide = data[1:2] == b"\0"
    end = next((at for at in range(0, len(data) - 1, 2) if data[at : at + 2] == b"\0\0"), len(data))
    return _raw(data[:end]) if wide else _raw(data.split(b"\0", 1)[0] or data)


def _record(record: Record) -> Described:
    """One SIPA record of Windows."""
    if record.parts:
        return {"record": record.name, "parts": [_record(part) for part in record.parts]}
    if len(record.content) in _NUMBER_SIZES:
        return {"record": record.name, "value": record.number}
    return {"record": record.name, **_raw(record.content)}


def _no_action(data: bytes) -> Described:
    signature = data[:16].rstrip(b"\0")
    return {"signature": signature.decode("ascii"), "size": len(data)} if signature.isascii() else _raw(data)


_RULES: Final[dict[int, Callable[[bytes], Described]]] = {
    EventType.EV_NO_ACTION: _no_action,
    EventType.EV_SEPARATOR: _separator,
    EventType.EV_EVENT_TAG: _tagged,
    EventType.EV_IPL: _loader,
    EventType.EV_PLATFORM_CONFIG_FLAGS: _platform_flags,
    EventType.EV_EFI_VARIABLE_DRIVER_CONFIG: _variable,
    EventType.EV_EFI_VARIABLE_BOOT: _variable,
    EventType.EV_EFI_VARIABLE_BOOT2: _variable,
    EventType.EV_EFI_VARIABLE_AUTHORITY: _authority,
    EventType.EV_EFI_BOOT_SERVICES_APPLICATION: _image,
    EventType.EV_EFI_BOOT_SERVICES_DRIVER: _image,
    EventType.EV_EFI_RUNTIME_SERVICES_DRIVER: _image,
    EventType.EV_EFI_GPT_EVENT: _partition_table,
    EventType.EV_EFI_GPT_EVENT2: _partition_table,
    EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB: _blob1,
    EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB2: _blob2,
    EventType.EV_EFI_HANDOFF_TABLES: _tables1,
    EventType.EV_EFI_HANDOFF_TABLES2: _tables2,
}
